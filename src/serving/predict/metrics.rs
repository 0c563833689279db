//! Counters and histograms of predictions.

use super::owner_queue::QueueEntry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::{Duration, Instant};

/// Upper bounds in seconds.
pub const TIME_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const INPUT_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const TOKEN_BUCKETS: [f64; 9] = [16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 16_384.0];

/// Metrics of the batches; clones share them.
#[derive(Clone)]
pub struct PredictMetrics {
    batches: Counter,
    inputs: Counter,
    tokens: Counter,
    queue_wait: Histogram,
    forward: Histogram,
    batch_inputs: Histogram,
    batch_tokens: Histogram,
}

impl Default for PredictMetrics {
    fn default() -> Self {
        Self {
            batches: Counter::default(),
            inputs: Counter::default(),
            tokens: Counter::default(),
            queue_wait: Histogram::new(TIME_BUCKETS),
            forward: Histogram::new(TIME_BUCKETS),
            batch_inputs: Histogram::new(INPUT_BUCKETS),
            batch_tokens: Histogram::new(TOKEN_BUCKETS),
        }
    }
}

impl PredictMetrics {
    /// Records a batch that is about to be computed. A request that is served in several batches counts in each.
    pub fn start_batch(&self, entries: &[QueueEntry], now: Instant) {
        let tokens: usize = entries.iter().map(|entry| entry.tokens.ids.len()).sum();
        self.batches.inc();
        self.inputs.inc_by(entries.len() as u64);
        self.tokens.inc_by(tokens as u64);
        self.batch_inputs.observe(entries.len() as f64);
        self.batch_tokens.observe(tokens as f64);
        for request in entries.chunk_by(|one, other| one.request == other.request) {
            self.queue_wait.observe(now.saturating_duration_since(request[0].enqueued_at).as_secs_f64());
        }
    }

    pub fn end_batch(&self, duration: Duration) {
        self.forward.observe(duration.as_secs_f64());
    }

    pub fn batches(&self) -> u64 {
        self.batches.get()
    }

    pub fn inputs(&self) -> u64 {
        self.inputs.get()
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register("serving_batches", "Batches computed", self.batches.clone());
        registry.register("serving_batched_inputs", "Inputs of the computed batches", self.inputs.clone());
        registry.register("prediction_tokens", "Tokens of the computed batches", self.tokens.clone());
        registry.register("prediction_batch_inputs", "Inputs of a batch", self.batch_inputs.clone());
        registry.register("prediction_batch_tokens", "Tokens of a batch", self.batch_tokens.clone());
        let mut time = |name, help, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        time("prediction_queue_wait", "Time from the end of tokenizing to the start of a batch", &self.queue_wait);
        time("prediction_forward_duration", "Time to compute a batch", &self.forward);
    }
}
