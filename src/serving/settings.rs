//! Settings, request options, responses and counters of serving.

use super::generation;
use crate::store::ResolvedAdapter;
use espalier_core::task::{Prediction, Threshold};
use espalier_tensor::ActivationQuantization;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that compute predictions.
    pub threads: usize,
    /// Memory budget of the adapter cache in bytes.
    pub adapter_cache_bytes: u64,
    /// Age up to which the version of a name is used while the database is unavailable.
    pub max_name_staleness: Duration,
    /// Capacity of the prediction queue in inputs; a request beyond it is `Busy`.
    pub max_queued_inputs: usize,
    /// A request that would probably wait for longer is `Busy`.
    pub max_queue_wait: Duration,
    /// Longest time that a batch waits for requests that are being tokenized.
    pub max_batch_delay: Duration,
    /// Tokens in one forward pass.
    pub max_batch_tokens: usize,
    /// Inputs in one request.
    pub max_inputs_per_request: usize,
    /// Bytes of a text that are tokenized at most to find its first tokens.
    pub max_text_bytes: usize,
    pub activation_quantization: ActivationQuantization,
    pub generation: generation::Settings,
}

/// Options of a predict request.
#[derive(Debug, Clone)]
pub struct PredictOptions {
    /// Number of labels in `top`.
    pub top_k: usize,
    pub logits: LogitsOutput,
    pub long_inputs: LongInputs,
    /// Probability from which a label is predicted; `None` for the default.
    pub threshold: Option<Threshold>,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self { top_k: 1, logits: LogitsOutput::Omit, long_inputs: LongInputs::Truncate, threshold: None }
    }
}

/// What happens to inputs that are longer than the adapter or the base model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongInputs {
    Truncate,
    Refuse,
}

impl LongInputs {
    /// From the field `truncate` of a request.
    pub fn from_truncate(truncate: bool) -> Self {
        if truncate { Self::Truncate } else { Self::Refuse }
    }
}

/// Whether predictions contain their logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsOutput {
    Omit,
    Include,
}

/// One prediction per input, in input order, and the adapter version that computed them (`None`: the base model).
#[derive(Debug, Clone)]
pub struct PredictResponse {
    pub adapter: Option<Arc<ResolvedAdapter>>,
    pub predictions: Vec<Prediction>,
    /// Whether each input was truncated.
    pub truncated: Vec<bool>,
    /// Tokens of each input that the model read.
    pub token_counts: Vec<usize>,
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
    pub running_inputs: u64,
    pub batches: u64,
    pub batched_inputs: u64,
    /// All zero for a base model that is not a causal language model.
    pub generation: generation::Stats,
}
