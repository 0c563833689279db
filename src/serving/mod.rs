//! Resident adapters, batching and predictions. Knows nothing of HTTP or of training.
//!
//! A request is admitted ([`queue`]), its adapter is found or loaded ([`cache`], [`resident`]), its inputs become
//! tokens and wait ([`queue`]), a computing thread takes what waits whatever its adapters ([`batch`], [`mixed`]), and
//! the rows that come back ([`ticket`]) are put into words ([`decode`]). [`service`] is that order. Texts that go on have a loop
//! of their own ([`generate`]).

mod batch;
mod cache;
mod decode;
pub mod generate;
mod inputs;
pub mod mixed;
mod queue;
mod resident;
mod service;
mod ticket;
mod wish;

pub use resident::Resident;
pub use service::Serving;
pub use wish::{Started, Wish};

use crate::store::Adapter;
use espalier_core::task::Prediction;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that compute predictions.
    pub threads: usize,
    /// Bytes of adapters kept in memory.
    pub cache_bytes: u64,
    /// Inputs that may wait; beyond them a request is `Busy`.
    pub max_waiting: usize,
    /// How long a batch waits for company.
    pub batch_window: Duration,
    /// Tokens in one packed forward.
    pub batch_tokens: usize,
    /// Inputs in one request.
    pub max_inputs: usize,
    /// Of texts that go on.
    pub generation: generate::Settings,
}

/// What a request may ask beside its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// How many labels `top` lists.
    pub top_k: usize,
    pub logits: Logits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    Omit,
    Include,
}

/// One prediction per input, in order, and the version that answered (`None`: the bare base).
#[derive(Debug, Clone)]
pub struct Answer {
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
    pub waiting: u64,
    pub batches: u64,
    pub batched_inputs: u64,
    /// Where the base says what comes next.
    pub generation: generate::Stats,
}
