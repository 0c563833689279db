//! Resident adapters, batching and predictions. Knows nothing of HTTP or of training.

pub mod mixed;

use crate::error::Result;
use crate::model::Base;
use crate::store::{Adapter, Reference, Store};
use crate::task::{Input, Prediction};
use std::path::PathBuf;
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
}

/// The handle that requests use; cloned freely.
#[derive(Clone)]
pub struct Serving {}

impl Serving {
    /// Starts the computing threads. `adapters` is the folder whose sub-folders are versions.
    pub fn start(base: Arc<Base>, store: Arc<dyn Store>, adapters: PathBuf, settings: Settings) -> Result<Self> {
        let _ = (base, store, adapters, settings);
        todo!("written by the serving room")
    }

    /// # Errors
    /// `NotFound` for the adapter; `Invalid` for inputs that are empty or too many; `Busy` when the queue is full;
    /// `Conflict` (`adapter_damaged`, `other_base`) where the adapter's folder fails its checks.
    pub async fn predict(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        inputs: Vec<Input>,
        ask: Ask,
    ) -> Result<Answer> {
        let _ = (owner, reference, inputs, ask);
        todo!("written by the serving room")
    }

    /// Forgets a deleted adapter; requests that are under way keep it.
    pub fn forget(&self, version: &str) {
        let _ = version;
        todo!("written by the serving room")
    }

    pub fn stats(&self) -> Stats {
        todo!("written by the serving room")
    }
}
