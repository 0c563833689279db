//! How a run speaks while it runs, and hears that it is to stop. Time lives here, and nowhere that decides bytes.

use super::checkpoint::Counters;
use super::run::Halt;
use super::{Progress, Row, Spec, Stop};
use std::ops::ControlFlow;
use std::time::Instant;

pub struct Speaker<'a> {
    report: &'a mut dyn FnMut(&Progress) -> ControlFlow<Stop>,
    last: Progress,
    /// Rows of the run that were spoken of; a resumed run begins with all of them.
    spoken: usize,
    started: Option<(Instant, u64)>,
    /// Of a race, whose candidates are not spoken of one by one.
    leg: Option<Leg>,
}

/// Where a candidate's steps are among those of a whole race.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    /// Steps of the race before this leg.
    pub before: u64,
    /// The candidate's own before it.
    pub from: u64,
    /// In the whole race.
    pub total: u64,
}

impl<'a> Speaker<'a> {
    pub fn new(report: &'a mut dyn FnMut(&Progress) -> ControlFlow<Stop>) -> Self {
        let last = Progress {
            step: 0,
            total_steps: 0,
            epoch: 0.0,
            train_loss: 0.0,
            examples_per_second: 0.0,
            eta_seconds: 0.0,
            rows: Vec::new(),
            checkpointed: false,
        };
        Self { report, last, spoken: 0, started: None, leg: None }
    }

    /// In the middle of longer work: says nothing new, hears.
    pub fn listen(&mut self) -> Result<(), Halt> {
        let said = (self.report)(&self.last);
        self.last.rows.clear();
        self.last.checkpointed = false;
        match said {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(stop) => Err(Halt::Stop(stop)),
        }
    }

    /// A checkpoint is on disk; said with the next word.
    pub fn checkpointed(&mut self) {
        self.last.checkpointed = true;
    }

    /// Another candidate of a race steps from now on.
    pub fn leg(&mut self, leg: Leg) {
        self.leg = Some(leg);
    }

    /// After a step.
    pub fn stepped(
        &mut self,
        counters: &Counters,
        spec: &Spec,
        total_steps: u64,
        per_epoch: u64,
        loss: f64,
    ) -> Result<(), Halt> {
        let (step, total_steps) = match self.leg {
            Some(leg) => (leg.before + counters.step - leg.from, leg.total),
            None => (counters.step, total_steps),
        };
        let (since, first) = *self.started.get_or_insert((Instant::now(), step));
        let steps = step - first;
        if steps > 0 {
            let rate = steps as f64 / since.elapsed().as_secs_f64().max(1e-9);
            self.last.examples_per_second = rate * spec.hyperparameters.step_examples() as f64;
            self.last.eta_seconds = (total_steps - step) as f64 / rate;
        }
        self.last.step = step;
        self.last.total_steps = total_steps;
        self.last.epoch = counters.step as f64 / per_epoch as f64;
        self.last.train_loss = loss;
        self.rows(counters);
        self.listen()
    }

    /// The rows that are new.
    pub fn rows(&mut self, counters: &Counters) {
        if self.leg.is_some() {
            return;
        }
        self.last.rows.extend(counters.rows.iter().skip(self.spoken).cloned());
        self.spoken = counters.rows.len();
    }

    /// A row that is no run's.
    pub fn row(&mut self, row: Row) {
        self.last.rows.push(row);
    }
}
