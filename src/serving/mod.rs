//! Resident adapters, batching and predictions. Knows nothing of HTTP or of training.
//!
//! A request is admitted ([`queue`]), its adapter is found or loaded ([`cache`], [`resident`]), its inputs become
//! tokens and wait ([`queue`]), a computing thread takes what waits whatever its adapters ([`batch`], [`mixed`]), and
//! the rows that come back ([`ticket`]) are put into words ([`decode`]). [`service`] is that order. Texts that go on have a loop
//! of their own ([`generate`]).

mod adapters;
pub mod generation;
pub mod multi_adapter;
mod predict;
mod service;

pub use adapters::AdapterHandle;
pub use generation::generation_request::{GenerationRequest, RunningGeneration};
pub use service::InferenceService;

use crate::store::Adapter;
use espalier_core::task::Prediction;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that compute predictions.
    pub threads: usize,
    /// Bytes of adapters kept in memory.
    pub adapter_cache_bytes: u64,
    /// Inputs that may wait; beyond them a request is `Busy`.
    pub max_queued_inputs: usize,
    /// How long a batch waits for company.
    pub max_batch_delay: Duration,
    /// Tokens in one packed forward.
    pub max_batch_tokens: usize,
    /// Inputs in one request.
    pub max_inputs_per_request: usize,
    /// Of texts that go on.
    pub generation: generation::Settings,
}

/// What a request may ask beside its inputs.
#[derive(Debug, Clone, Copy)]
pub struct PredictOptions {
    /// How many labels `top` lists.
    pub top_k: usize,
    pub logits: LogitsOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsOutput {
    Omit,
    Include,
}

/// One prediction per input, in order, and the version that answered (`None`: the bare base).
#[derive(Debug, Clone)]
pub struct PredictResponse {
    pub adapter: Option<Arc<Adapter>>,
    pub predictions: Vec<Prediction>,
}

/// Counters and gauges for `/metrics`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    pub resident_adapters: u64,
    pub resident_bytes: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub evictions: u64,
    pub queued_inputs: u64,
    pub batches: u64,
    pub batched_inputs: u64,
    /// Where the base says what comes next.
    pub generation: generation::Stats,
}
