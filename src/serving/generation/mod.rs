//! Texts that go on, for many requests at once: each step computes the next rows of all sequences, whatever their adapters.
//!
//! A request becomes sequences ([`sequence`]), which wait until there is room for what will be remembered of them ([`line`]).
//! At every step ([`engine`]) those that wait may join and those that are done leave; long prompts are read in pieces, so that
//! they do not hold up the others ([`turns`]). Rows that many prompts begin with are computed once ([`shared`]). [`step`] is one forward
//! pass, [`sampling`] the choice of a token, [`grammar`] what it may be, [`text`] its way into words. Knows nothing of HTTP.

mod batch_planner;
pub mod constraint;
pub mod detokenizer;
mod engine;
pub mod generation_request;
mod model_runner;
mod prefix_cache;
mod request;
pub mod sampling;
mod scheduler;
mod sequence;
mod stop_sequences;
pub mod token_encoding;

pub use engine::GenerationEngine;
pub use request::{Completion, GenerationStream, Prompt, SequenceRequest, TokenOutput};
pub use sequence::check_context_length;

use espalier_tensor::weight_ops::ActivationQuantization;

/// Limits of generation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that compute.
    pub threads: usize,
    /// Memory for keys and values.
    pub kv_cache_bytes: u64,
    /// Sequences that may wait; beyond them a request is `Busy`.
    pub max_queued_sequences: usize,
    /// Sequences that are computed at once.
    pub max_running_sequences: usize,
    /// Of the time, what is left to jobs where there are any: from 0 to below 1.
    pub training_cpu_share: f64,
    /// How the base's weights of 8 and 4 bits are multiplied.
    pub activation_quantization: ActivationQuantization,
    /// Tokens that are generated where a request does not say how many.
    pub default_max_tokens: u32,
    /// Tokens of prompts that are read in a step for each sequence that reads beside one that goes on.
    pub prefill_chunk_tokens: usize,
}

/// Counters and gauges for `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub running_sequences: u64,
    pub queued_sequences: u64,
    /// Pages that are promised to those that run.
    pub reserved_blocks: u64,
    /// Bytes of keys and values in memory or promised.
    pub kv_cache_reserved_bytes: u64,
    pub prompt_tokens: u64,
    /// Of them, those that were not computed because others began alike.
    pub prefix_cache_hit_tokens: u64,
    pub generated_tokens: u64,
    pub steps: u64,
}
