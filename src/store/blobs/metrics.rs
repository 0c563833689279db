//! Metrics of object storage.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Upper bounds in seconds, from a request in a data center to the longest retry.
const BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Metrics of all calls to object storage of this process; clones share them.
#[derive(Debug, Clone)]
pub struct ObjectStorageMetrics {
    calls: Family<CallLabels, Counter>,
    duration: Family<OperationLabels, Histogram, fn() -> Histogram>,
    bytes: Family<OperationLabels, Counter>,
    damaged: Counter,
}

impl Default for ObjectStorageMetrics {
    fn default() -> Self {
        let histogram = || Histogram::new(BUCKETS);
        Self {
            calls: Family::default(),
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            bytes: Family::default(),
            damaged: Counter::default(),
        }
    }
}

impl ObjectStorageMetrics {
    /// Records a call with its retries.
    pub fn record_call(&self, operation: &'static str, is_ok: bool, duration: Duration) {
        let outcome = if is_ok { "ok" } else { "error" };
        self.calls.get_or_create(&CallLabels { operation, outcome }).inc();
        self.duration.get_or_create(&OperationLabels { operation }).observe(duration.as_secs_f64());
    }

    pub fn record_bytes(&self, operation: &'static str, bytes: u64) {
        self.bytes.get_or_create(&OperationLabels { operation }).inc_by(bytes);
    }

    /// Records a download whose content was not what its name says.
    pub fn record_damage(&self) {
        self.damaged.inc();
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register("object_storage_calls", "Calls to object storage by their outcome", self.calls.clone());
        registry.register_with_unit(
            "object_storage_call_duration",
            "Time of calls to object storage, with their retries",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("object_storage_bytes", "Bytes uploaded and downloaded", self.bytes.clone());
        registry.register("object_storage_damaged_downloads", "Downloads with another sha256", self.damaged.clone());
    }
}
