//! Histograms of generation.

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

const QUEUE_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const FIRST_TOKEN_BUCKETS: [f64; 13] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const TOKEN_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0];

/// Times of sequences; clones share them.
#[derive(Clone)]
pub struct GenerationMetrics {
    pub queue_wait: Histogram,
    pub time_to_first_token: Histogram,
    pub time_per_output_token: Histogram,
}

impl Default for GenerationMetrics {
    fn default() -> Self {
        Self {
            queue_wait: Histogram::new(QUEUE_BUCKETS),
            time_to_first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
            time_per_output_token: Histogram::new(TOKEN_BUCKETS),
        }
    }
}

impl GenerationMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let mut time = |name, help, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        time("generation_queue_wait", "Time of a sequence in the queue", &self.queue_wait);
        time(
            "generation_time_to_first_token",
            "Time from the queueing of a sequence to its first generated token",
            &self.time_to_first_token,
        );
        time(
            "generation_time_per_output_token",
            "Mean time between two generated tokens of a sequence",
            &self.time_per_output_token,
        );
    }
}
