//! How a run speaks while it runs, and hears that it is to stop. Time lives here, and nowhere that decides bytes.

use super::checkpoint::Counters;
use super::run::Halt;
use super::{Progress, Spec, Stop};
use std::ops::ControlFlow;
use std::time::Instant;

pub struct Speaker<'a> {
    report: &'a mut dyn FnMut(&Progress) -> ControlFlow<Stop>,
    last: Progress,
    /// Rows of the run that were spoken of; a resumed run begins with all of them.
    spoken: usize,
    started: Option<(Instant, u64)>,
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
        Self { report, last, spoken: 0, started: None }
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

    /// After a step.
    pub fn stepped(
        &mut self,
        counters: &Counters,
        spec: &Spec,
        total_steps: u64,
        per_epoch: u64,
        loss: f64,
    ) -> Result<(), Halt> {
        let (since, first) = *self.started.get_or_insert((Instant::now(), counters.step));
        let steps = counters.step - first;
        if steps > 0 {
            let rate = steps as f64 / since.elapsed().as_secs_f64().max(1e-9);
            self.last.examples_per_second = rate * spec.hyperparameters.step_examples() as f64;
            self.last.eta_seconds = (total_steps - counters.step) as f64 / rate;
        }
        self.last.step = counters.step;
        self.last.total_steps = total_steps;
        self.last.epoch = counters.step as f64 / per_epoch as f64;
        self.last.train_loss = loss;
        self.rows(counters);
        self.listen()
    }

    /// The rows that are new.
    pub fn rows(&mut self, counters: &Counters) {
        self.last.rows.extend(counters.rows.iter().skip(self.spoken).cloned());
        self.spoken = counters.rows.len();
    }
}
