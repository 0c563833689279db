//! Schedule of the rungs of successive halving, with the examples that a candidate has seen as the resource.

/// Rung: the surviving candidates train to this step, and the best of them survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    pub step: u64,
    pub survivors: usize,
}

/// Steps of a full run over the training examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceSchedule {
    pub examples: u64,
    /// Examples per step; the last step of an epoch may have fewer.
    pub examples_per_step: u64,
    pub total_steps: u64,
}

impl ResourceSchedule {
    fn steps_per_epoch(self) -> u64 {
        self.examples.div_ceil(self.examples_per_step).max(1)
    }

    /// Examples seen after `step` steps.
    pub fn examples_seen(self, step: u64) -> u64 {
        let (epochs, steps) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        epochs * self.examples + (steps * self.examples_per_step).min(self.examples)
    }

    /// First step after which at least `examples` examples are seen, or the last step of the run.
    fn first_step_with(self, examples: u64) -> u64 {
        let (epochs, remainder) = (examples / self.examples.max(1), examples % self.examples.max(1));
        (epochs * self.steps_per_epoch() + remainder.div_ceil(self.examples_per_step)).min(self.total_steps)
    }

    /// Rungs, each at twice the examples of the one before it and with half the candidates. The last rung is the end of the full run
    /// and leaves one candidate.
    pub fn rungs(self, candidates: usize, first_rung: u64) -> Vec<Rung> {
        let (mut rungs, mut surviving, mut examples) = (Vec::new(), candidates, first_rung);
        while surviving > 1 && self.first_step_with(examples) < self.total_steps {
            surviving = surviving.div_ceil(2);
            rungs.push(Rung { step: self.first_step_with(examples), survivors: surviving });
            examples = examples.saturating_mul(2);
        }
        rungs.push(Rung { step: self.total_steps, survivors: 1 });
        rungs
    }
}

/// Steps of all candidates before each rung, and last in total.
pub fn cumulative_steps(rungs: &[Rung], candidates: usize) -> Vec<u64> {
    let (mut steps, mut surviving, mut previous_step) = (vec![0], candidates as u64, 0);
    for rung in rungs {
        steps.push(steps[steps.len() - 1] + surviving * (rung.step - previous_step));
        (surviving, previous_step) = (rung.survivors as u64, rung.step);
    }
    steps
}

/// Number of halvings that leave one candidate.
pub fn halving_count(candidates: usize) -> u32 {
    candidates.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: ResourceSchedule = ResourceSchedule { examples: 1000, examples_per_step: 32, total_steps: 96 };

    fn rung(step: u64, keep: usize) -> Rung {
        Rung { step, survivors: keep }
    }

    #[test]
    fn half_are_dropped_at_each_rung_and_the_last_rung_is_the_full_run() {
        let rungs = SCHEDULE.rungs(8, 375);
        assert_eq!(rungs, [rung(12, 4), rung(24, 2), rung(48, 1), rung(96, 1)]);
        assert_eq!(cumulative_steps(&rungs, 8), [0, 96, 144, 192, 240]);
        assert_eq!(SCHEDULE.rungs(5, 375), [rung(12, 3), rung(24, 2), rung(48, 1), rung(96, 1)]);
        assert_eq!(SCHEDULE.rungs(2, 1500), [rung(48, 1), rung(96, 1)]);
        assert_eq!((halving_count(8), halving_count(5), halving_count(2), halving_count(9)), (3, 3, 1, 4));
    }

    #[test]
    fn a_late_first_rung_merges_with_the_last_and_an_early_one_has_one_step() {
        assert_eq!(SCHEDULE.rungs(8, 2000), [rung(64, 4), rung(96, 1)]);
        assert_eq!(SCHEDULE.rungs(8, 3000), [rung(96, 1)]);
        assert_eq!(SCHEDULE.rungs(4, 1), [rung(1, 2), rung(1, 1), rung(96, 1)]);
    }

    #[test]
    fn the_last_batch_of_an_epoch_is_smaller() {
        assert_eq!([0, 1, 31, 32, 33, 96].map(|step| SCHEDULE.examples_seen(step)), [0, 32, 992, 1000, 1032, 3000]);
        assert_eq!(SCHEDULE.first_step_with(1000), 32);
        assert_eq!(SCHEDULE.first_step_with(1001), 33);
    }
}
