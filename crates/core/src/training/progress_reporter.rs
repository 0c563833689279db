//! How a run speaks while it runs, and hears that it is to stop. Time lives here, and nowhere that decides bytes.

use super::checkpoint::TrainerState;
use super::trainer::Interrupted;
use super::{MetricsRow, Progress, Spec, StopReason};
use std::ops::ControlFlow;
use std::time::Instant;

pub struct ProgressReporter<'a> {
    on_progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
    progress: Progress,
    /// Rows of the run that were spoken of; a resumed run begins with all of them.
    reported_rows: usize,
    timer: Option<(Instant, u64)>,
    /// Of a race, whose candidates are not spoken of one by one.
    segment: Option<CandidateSegment>,
}

/// Where a candidate's steps are among those of a whole race.
#[derive(Debug, Clone, Copy)]
pub struct CandidateSegment {
    /// Steps of the race before this leg.
    pub steps_before: u64,
    /// The candidate's own before it.
    pub candidate_start: u64,
    /// In the whole race.
    pub total_steps: u64,
}

impl<'a> ProgressReporter<'a> {
    pub fn new(on_progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<StopReason>) -> Self {
        let last = Progress {
            step: 0,
            total_steps: 0,
            epoch: 0.0,
            train_loss: 0.0,
            examples_per_second: 0.0,
            eta_seconds: 0.0,
            new_rows: Vec::new(),
            has_new_checkpoint: false,
        };
        Self { on_progress, progress: last, reported_rows: 0, timer: None, segment: None }
    }

    /// In the middle of longer work: says nothing new, hears.
    pub fn check_stop(&mut self) -> Result<(), Interrupted> {
        let flow = (self.on_progress)(&self.progress);
        self.progress.new_rows.clear();
        self.progress.has_new_checkpoint = false;
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(stop) => Err(Interrupted::Stop(stop)),
        }
    }

    /// A checkpoint is on disk; said with the next word.
    pub fn mark_checkpointed(&mut self) {
        self.progress.has_new_checkpoint = true;
    }

    /// Another candidate of a race steps from now on.
    pub fn begin_segment(&mut self, segment: CandidateSegment) {
        self.segment = Some(segment);
    }

    /// After a step.
    pub fn report_step(
        &mut self,
        counters: &TrainerState,
        spec: &Spec,
        total_steps: u64,
        steps_per_epoch: u64,
        loss: f64,
    ) -> Result<(), Interrupted> {
        let (step, total_steps) = match self.segment {
            Some(segment) => (segment.steps_before + counters.step - segment.candidate_start, segment.total_steps),
            None => (counters.step, total_steps),
        };
        let (started, first_step) = *self.timer.get_or_insert((Instant::now(), step));
        let steps = step - first_step;
        if steps > 0 {
            let rate = steps as f64 / started.elapsed().as_secs_f64().max(1e-9);
            self.progress.examples_per_second = rate * spec.hyperparameters.examples_per_step() as f64;
            self.progress.eta_seconds = (total_steps - step) as f64 / rate;
        }
        self.progress.step = step;
        self.progress.total_steps = total_steps;
        self.progress.epoch = counters.step as f64 / steps_per_epoch as f64;
        self.progress.train_loss = loss;
        self.queue_new_rows(counters);
        self.check_stop()
    }

    /// The rows that are new.
    pub fn queue_new_rows(&mut self, counters: &TrainerState) {
        if self.segment.is_some() {
            return;
        }
        self.progress.new_rows.extend(counters.metrics_rows.iter().skip(self.reported_rows).cloned());
        self.reported_rows = counters.metrics_rows.len();
    }

    /// A row that is no run's.
    pub fn queue_row(&mut self, row: MetricsRow) {
        self.progress.new_rows.push(row);
    }
}
