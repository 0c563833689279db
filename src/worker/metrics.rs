//! Counters and histograms of the workers of this process.

use crate::store::Job;
use espalier_core::training::Progress;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Upper bounds in seconds, from a second to a day.
const JOB_BUCKETS: [f64; 10] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    Succeeded,
    /// The job has failed.
    Failed,
    /// Cancelled, paused, or requeued by a shutdown.
    Stopped,
    /// Requeued, so that the job of another owner runs.
    Preempted,
    /// An error that is not the job's own; the job is tried again.
    Error,
    LeaseLost,
}

impl AttemptEnd {
    fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Preempted => "preempted",
            Self::Error => "error",
            Self::LeaseLost => "lease_lost",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Metrics of all worker slots; clones share them.
#[derive(Clone)]
pub struct Metrics {
    slots: Gauge,
    busy_slots: Gauge,
    attempts: Family<OutcomeLabels, Counter>,
    attempt_duration: Family<OutcomeLabels, Histogram, fn() -> Histogram>,
    queue_wait: Histogram,
    steps: Counter,
    examples: Counter,
    checkpoints: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(JOB_BUCKETS);
        Self {
            slots: Gauge::default(),
            busy_slots: Gauge::default(),
            attempts: Family::default(),
            attempt_duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            queue_wait: histogram(),
            steps: Counter::default(),
            examples: Counter::default(),
            checkpoints: Counter::default(),
        }
    }
}

/// Counts one slot as busy until it is dropped.
pub struct BusySlot(Gauge);

impl Drop for BusySlot {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn set_slots(&self, slots: usize) {
        self.slots.set(i64::try_from(slots).unwrap_or(i64::MAX));
    }

    /// Records the start of an attempt, and how long a job has waited for its first one.
    pub fn start_attempt(&self, job: &Job) -> BusySlot {
        if let (1, Some(started_at)) = (job.attempt, job.started_at) {
            self.queue_wait.observe((started_at - job.created_at).as_seconds_f64().max(0.0));
        }
        self.busy_slots.inc();
        BusySlot(self.busy_slots.clone())
    }

    pub fn end_attempt(&self, end: AttemptEnd, duration: Duration) {
        let labels = OutcomeLabels { outcome: end.as_str() };
        self.attempts.get_or_create(&labels).inc();
        self.attempt_duration.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    pub fn record_progress(&self, progress: &Progress) {
        if progress.new_examples > 0 {
            self.steps.inc();
            self.examples.inc_by(progress.new_examples);
        }
        if progress.has_new_checkpoint {
            self.checkpoints.inc();
        }
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register("worker_slots", "Jobs that this process trains at once", self.slots.clone());
        registry.register("worker_busy_slots", "Jobs that this process trains now", self.busy_slots.clone());
        registry.register("job_attempts", "Attempts at jobs by their end", self.attempts.clone());
        registry.register_with_unit(
            "job_attempt_duration",
            "Time from the claim of a job to the end of the attempt",
            Unit::Seconds,
            self.attempt_duration.clone(),
        );
        registry.register_with_unit(
            "job_queue_wait",
            "Time from the submission of a job to its first attempt",
            Unit::Seconds,
            self.queue_wait.clone(),
        );
        registry.register("training_steps", "Optimizer steps", self.steps.clone());
        registry.register("training_examples", "Examples of the optimizer steps", self.examples.clone());
        registry.register("training_checkpoints", "Checkpoints written", self.checkpoints.clone());
    }
}
