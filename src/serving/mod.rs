//! Inference: the adapter cache, predictions in dynamic batches, and text generation with continuous batching.
//!
//! [`service`] is the entry point of a request. `predict` and `generation` hold the two request paths; both compute
//! inputs of several adapters in one forward pass ([`multi_adapter`]).

mod adapter_activity;
mod adapters;
mod backends;
mod errors;
mod forward_speed;
pub mod generation;
mod low_priority;
pub mod multi_adapter;
mod owners;
mod pinned_lru;
mod predict;
mod service;
mod settings;
mod shutdown;
mod tokenize;
mod tokenize_lanes;

pub use adapter_activity::AdapterActivity;
pub use adapters::AdapterHandle;
pub use espalier_tensor::kv_cache::BLOCK_SIZE as KV_BLOCK_SIZE;
pub use generation::GenerationRequest;
pub use owners::{Owner, OwnerSemaphore};
pub use service::{InferenceService, RunningGeneration};
pub use settings::{LogitsOutput, LongInputs, PredictOptions, PredictResponse, Settings, Stats};
pub use tokenize::{TokenizeOutput, TokenizeRequest, TokenizedText};
