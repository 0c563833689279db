//! Progress of a run, reported through a callback that can also stop the run. Wall-clock time is read here and nowhere else in
//! training, so it never affects the resulting bytes.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;
use utoipa::ToSchema;

/// Progress of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    pub step: u64,
    pub total_steps: u64,
    pub epoch: f64,
    pub train_loss: f64,
    pub examples_per_second: f64,
    pub eta_seconds: f64,
    /// Metrics rows since the last report, in order. A resumed run reports all its rows again, so storing a row must be idempotent.
    #[serde(skip)]
    pub new_rows: Vec<MetricsRow>,
    /// Whether a checkpoint of this step is on disk.
    #[serde(skip)]
    pub has_new_checkpoint: bool,
    /// Examples of the step since the last report; 0 if no step was made.
    #[serde(skip)]
    pub new_examples: u64,
}

/// Row of metrics: a function of data, spec and seed alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricsRow {
    pub step: u64,
    /// `train` (every few steps), `validation` (at the end of an epoch), `start` (what is reused of the adapter that the job
    /// starts from), `samples` (texts generated after an epoch), or `race` (candidates dropped at a rung).
    pub split: String,
    #[schema(value_type = Object)]
    pub metrics: serde_json::Value,
}

/// Reason to stop a training run before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Cancel,
    Pause,
    /// The server shuts down; another attempt resumes from the checkpoint.
    Requeue,
    /// The job of another owner is next; another attempt resumes from the checkpoint.
    Preempt,
    /// Another worker owns the job; nothing more may be written.
    LeaseLost,
}

/// End of a computation before its result.
pub enum Interrupted {
    Stop(StopReason),
    Error(Error),
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Reports the progress of a run, or of the runs of all candidates of successive halving.
pub struct ProgressReporter<'a> {
    on_progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
    progress: Progress,
    /// Number of the run's rows that are reported.
    reported_rows: usize,
    timer: Option<(Instant, u64)>,
    /// Segment of a candidate; the rows of candidates are not reported.
    segment: Option<CandidateSegment>,
}

/// Segment of the steps of all candidates in which one candidate trains to a rung.
#[derive(Debug, Clone, Copy)]
pub struct CandidateSegment {
    /// Steps of all candidates before this segment.
    pub steps_before: u64,
    /// Steps of this candidate before this segment.
    pub candidate_start: u64,
    /// Steps of all candidates in total.
    pub total_steps: u64,
}

/// State of a run after a step.
pub struct StepReport<'a> {
    pub step: u64,
    pub total_steps: u64,
    pub steps_per_epoch: u64,
    pub examples_per_step: usize,
    pub loss: f64,
    /// All metrics rows of the run.
    pub metrics_rows: &'a [MetricsRow],
}

impl<'a> ProgressReporter<'a> {
    pub fn new(on_progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<StopReason>) -> Self {
        let progress = Progress {
            step: 0,
            total_steps: 0,
            epoch: 0.0,
            train_loss: 0.0,
            examples_per_second: 0.0,
            eta_seconds: 0.0,
            new_rows: Vec::new(),
            has_new_checkpoint: false,
            new_examples: 0,
        };
        Self { on_progress, progress, reported_rows: 0, timer: None, segment: None }
    }

    /// Calls the callback with what is queued.
    ///
    /// # Errors
    /// `Stop` where the callback asks to stop.
    pub fn check_stop(&mut self) -> Result<(), Interrupted> {
        let flow = (self.on_progress)(&self.progress);
        self.progress.new_rows.clear();
        self.progress.has_new_checkpoint = false;
        self.progress.new_examples = 0;
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(reason) => Err(Interrupted::Stop(reason)),
        }
    }

    /// Queues the notice that a checkpoint is on disk.
    pub fn mark_checkpointed(&mut self) {
        self.progress.has_new_checkpoint = true;
    }

    pub fn begin_segment(&mut self, segment: CandidateSegment) {
        self.segment = Some(segment);
    }

    /// Reports a step.
    ///
    /// # Errors
    /// As [`Self::check_stop`].
    pub fn report_step(&mut self, report: &StepReport) -> Result<(), Interrupted> {
        let (step, total_steps) = match self.segment {
            Some(segment) => (segment.steps_before + report.step - segment.candidate_start, segment.total_steps),
            None => (report.step, report.total_steps),
        };
        let (started, first_step) = *self.timer.get_or_insert((Instant::now(), step));
        let steps = step - first_step;
        if steps > 0 {
            let rate = steps as f64 / started.elapsed().as_secs_f64().max(1e-9);
            self.progress.examples_per_second = rate * report.examples_per_step as f64;
            self.progress.eta_seconds = (total_steps - step) as f64 / rate;
        }
        self.progress.new_examples = report.examples_per_step as u64;
        self.progress.step = step;
        self.progress.total_steps = total_steps;
        self.progress.epoch = report.step as f64 / report.steps_per_epoch as f64;
        self.progress.train_loss = report.loss;
        self.queue_new_rows(report.metrics_rows);
        self.check_stop()
    }

    /// Queues those of a run's rows that are not reported yet.
    pub fn queue_new_rows(&mut self, metrics_rows: &[MetricsRow]) {
        if self.segment.is_some() {
            return;
        }
        self.progress.new_rows.extend(metrics_rows.iter().skip(self.reported_rows).cloned());
        self.reported_rows = metrics_rows.len();
    }

    /// Queues a row that does not belong to a run.
    pub fn queue_row(&mut self, row: MetricsRow) {
        self.progress.new_rows.push(row);
    }
}
