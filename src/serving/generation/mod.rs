//! Text generation with continuous batching, chunked prefill and prefix caching.
//!
//! A [`GenerationRequest`] becomes sequences ([`sequence`]), which wait until the KV cache has room for them
//! ([`scheduler`]). At every step ([`step_loop`]) queued sequences may join and finished ones leave; prompts are prefilled
//! in chunks, so that they do not delay decoding ([`batch_planner`]). KV blocks of common prefixes are computed once
//! ([`prefix_cache`]). [`model_runner`] is the forward pass of a step, [`sampling`] selects a token, [`constraint`]
//! restricts the selection, and [`detokenizer`] turns tokens into text. [`tool_call_parser`] finds calls of tools in the text.
//! [`prompt_scoring`] collects the log probabilities of a prompt. [`prompt_lookup`] drafts tokens that a step verifies.

mod batch_planner;
mod closed_objects;
mod constraint;
mod constraint_cache;
pub mod constraint_spec;
mod detokenizer;
mod engine;
mod grammar;
mod json_object_scanner;
mod memory_budget;
mod metrics;
mod model_runner;
mod output;
mod phases;
mod prefix_cache;
mod prompt;
mod prompt_lookup;
mod prompt_scoring;
mod request;
mod reservation;
pub mod sampling;
mod scheduler;
mod sequence;
mod sequence_lane;
mod sequence_queue;
mod settings;
mod step_loop;
mod stop_sequences;
mod token_encoding;
pub mod tool_call_parser;

pub use detokenizer::FinishReason;
pub use engine::GenerationEngine;
pub use metrics::GenerationMetrics;
pub use output::{Completion, GenerationStream, SequenceOutput, TokenOutput};
pub use prompt::{Prompt, PromptText, PromptToken};
pub use request::{GenerationRequest, MAX_CHOICES, MaxTokens, PromptOutput, RequestFields};
pub use settings::{Settings, Stats};
pub use stop_sequences::StopOutput;
