//! A race on its way: who is left, who steps next, and what is on disk.
//!
//! Within a rung one candidate after the other goes on to the rung's step, each with checkpoints of its own; a rung is
//! decided when the ledger is on disk. So a race that is killed at any moment goes on from the last checkpoint of each who
//! is left. What the frozen base computes is shared through the remembered rows, which makes it needless to hold the
//! candidates to the same batch.

use super::leaderboard::{CandidateResult, Leaderboard, Score};
use super::rungs::{self, ResourceSchedule, Rung};
use super::{HalvingResult, SuccessiveHalvingSpec};
use crate::error::{Context, Error, Result};
use crate::model::BaseModel;
use crate::training::checkpoint::CheckpointDir;
use crate::training::job_context::JobContext;
use crate::training::progress::MetricsRow;
use crate::training::progress_reporter::{CandidateSegment, ProgressReporter};
use crate::training::tokenized_dataset::TokenizedDataset;
use crate::training::trainer::{Interrupted, Trainer};
use crate::training::{
    Dirs, Outcome, Progress, Settings, Spec, StopReason, TrainingData, TrainingResult, build_result,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Bracket<'a> {
    context: &'a JobContext<'a>,
    specs: &'a [Spec],
    dataset: TokenizedDataset,
    schedule: ResourceSchedule,
    rungs: Vec<Rung>,
    /// Of all candidates together, before each rung and in all.
    cumulative_steps: Vec<u64>,
    leaderboard: Leaderboard,
    checkpoint_root: &'a Path,
    /// Those that were started or read back, with their folders.
    trainers: BTreeMap<usize, (Trainer<'a>, CheckpointDir)>,
    /// Who steps.
    active: Option<usize>,
}

/// Races to the end, or until `report` says stop. Resumes from what is on disk.
///
/// # Errors
/// As [`crate::training::train`]; `Invalid` (`race_without_validation`) where nothing is left to decide by.
pub fn run(
    base: &Arc<BaseModel>,
    spec: &SuccessiveHalvingSpec,
    data: &TrainingData,
    dirs: &Dirs,
    settings: &Settings,
    on_progress: &mut dyn FnMut(&Progress) -> ControlFlow<StopReason>,
) -> Result<Outcome> {
    let specs: Vec<Spec> = (0..spec.method.candidates.len()).map(|candidate| spec.candidate_spec(candidate)).collect();
    let context = JobContext::new(base, settings, &dirs.feature_cache)?;
    let mut reporter = ProgressReporter::new(on_progress);
    let dataset = match TokenizedDataset::new(base, &specs[0], data, &mut reporter) {
        Ok(prepared) => prepared,
        Err(Interrupted::Stop(stop)) => return Ok(Outcome::Stopped(stop)),
        Err(Interrupted::Error(error)) => return Err(error),
    };
    let mut bracket = Bracket::new(spec, &specs, dataset, &context, &dirs.checkpoints)?;
    match bracket.run_to_end(&mut reporter) {
        Ok(trained) => Ok(Outcome::Finished(Box::new(trained))),
        Err(Interrupted::Error(error)) => Err(error),
        Err(Interrupted::Stop(stop)) => {
            if matches!(stop, StopReason::Pause | StopReason::Requeue) {
                bracket.save_active()?;
            }
            Ok(Outcome::Stopped(stop))
        }
    }
}

impl<'a> Bracket<'a> {
    fn new(
        spec: &SuccessiveHalvingSpec,
        specs: &'a [Spec],
        dataset: TokenizedDataset,
        context: &'a JobContext<'a>,
        checkpoint_root: &'a Path,
    ) -> Result<Self> {
        if dataset.validation.is_empty() {
            let advice = "a race is decided on validation examples, and there are none: give more examples or a larger \
                          validation fraction";
            return Err(Error::invalid("race_without_validation", advice));
        }
        let settings = &specs[0].hyperparameters;
        let schedule = ResourceSchedule {
            examples: dataset.training.len() as u64,
            examples_per_step: settings.examples_per_step() as u64,
            total_steps: settings.total_steps(dataset.training.len()),
        };
        let rungs = schedule.rungs(specs.len(), spec.method.budget.first_rung);
        let cumulative_steps = rungs::cumulative_steps(&rungs, specs.len());
        let leaderboard = load_or_reset(
            checkpoint_root,
            &serde_json::to_vec(spec).context("writing the race's specification down")?,
        )?;
        Ok(Self {
            context,
            specs,
            dataset,
            schedule,
            rungs,
            cumulative_steps,
            leaderboard,
            checkpoint_root,
            trainers: BTreeMap::new(),
            active: None,
        })
    }

    fn run_to_end(&mut self, reporter: &mut ProgressReporter) -> Result<TrainingResult, Interrupted> {
        for rung in 0..self.rungs.len() {
            if rung == self.leaderboard.rung_results.len() {
                self.run_rung(rung, reporter)?;
            }
            reporter.queue_row(self.rung_row(rung));
        }
        let surviving = self.leaderboard.surviving(self.specs.len());
        let winner = *surviving.first().ok_or_else(|| Error::internal("a race has a winner"))?;
        self.load_candidate(winner, reporter)?;
        let (trainer, _) = &self.trainers[&winner];
        let mut result = build_result(self.context.base, trainer, reporter)?;
        result.metrics_rows.extend((0..self.rungs.len()).map(|number| self.rung_row(number)));
        let table =
            self.leaderboard.to_json(winner, trainer.spec.selection_metric(), &self.method_names(), &self.rungs);
        result.successive_halving = Some(HalvingResult { winner, table });
        Ok(result)
    }

    /// Takes everybody who is left to the rung's step, and drops those that do worst.
    fn run_rung(&mut self, rung: usize, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        let (mut results, mut last_divergence) = (Vec::new(), None);
        for (position, candidate) in self.leaderboard.surviving(self.specs.len()).into_iter().enumerate() {
            let score = match self.train_to_rung(candidate, rung, position as u64, reporter) {
                Ok(verdict) => verdict,
                // Its own job would fail; the race goes on without it.
                Err(Interrupted::Error(error)) if error.code() == "training_diverged" => {
                    tracing::info!(candidate, %error, "a candidate is out of the race");
                    last_divergence = Some(error);
                    None
                }
                Err(halt) => return Err(halt),
            };
            let examples = self
                .schedule
                .examples_seen(self.trainers.get(&candidate).map_or(0, |(run, _)| run.state.trainer_state.step));
            results.push(CandidateResult { candidate, examples, score, dropped: false });
        }
        match last_divergence {
            Some(error) if results.iter().all(|judged| judged.score.is_none()) => return Err(error.into()),
            _ => self.leaderboard.record_rung(results, self.rungs[rung].survivors),
        }
        self.active = None;
        self.leaderboard.save(self.checkpoint_root)?;
        for dropped in self.leaderboard.rung_results[rung].iter().filter(|judged| judged.dropped) {
            // Read back they are never: a kill in between leaves files that go with the job's own.
            self.trainers.remove(&dropped.candidate);
            remove_dir(&self.candidate_dir(dropped.candidate))?;
        }
        tracing::info!(rung = rung + 1, left = ?self.leaderboard.surviving(self.specs.len()), "a rung of the race is decided");
        Ok(())
    }

    /// One candidate's way to a rung, and how well it does there; `None` for figures that are no numbers.
    fn train_to_rung(
        &mut self,
        candidate: usize,
        rung: usize,
        position: u64,
        reporter: &mut ProgressReporter,
    ) -> Result<Option<Score>, Interrupted> {
        let start = rung.checked_sub(1).map_or(0, |before| self.rungs[before].step);
        let end = self.rungs[rung].step;
        let total_steps = self.cumulative_steps[self.cumulative_steps.len() - 1];
        reporter.begin_segment(CandidateSegment {
            steps_before: self.cumulative_steps[rung] + position * (end - start),
            candidate_start: start,
            total_steps,
        });
        self.load_candidate(candidate, reporter)?;
        self.active = Some(candidate);
        let (trainer, checkpoint_dir) =
            self.trainers.get_mut(&candidate).ok_or_else(|| Error::internal("a candidate is in its race"))?;
        trainer.train_until(end, checkpoint_dir, self.context.settings, reporter)?;
        let (score, loss) = trainer.best_score(reporter)?;
        Ok((score.is_finite() && loss.is_finite()).then_some(Score { score, loss }))
    }

    /// Starts a candidate, or reads it back.
    fn load_candidate(&mut self, candidate: usize, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        if self.trainers.contains_key(&candidate) {
            return Ok(());
        }
        let spec = &self.specs[candidate];
        let spec_json = serde_json::to_vec(spec).context("writing a candidate's specification down")?;
        let checkpoint_dir = CheckpointDir::new(self.candidate_dir(candidate), &spec_json)?;
        let trainer = Trainer::resume_or_start(
            self.context,
            spec,
            self.dataset.for_method(spec),
            None,
            &checkpoint_dir,
            reporter,
        )?;
        self.trainers.insert(candidate, (trainer, checkpoint_dir));
        Ok(())
    }

    /// The others are on disk as they are.
    fn save_active(&self) -> Result<()> {
        match self.active.and_then(|candidate| self.trainers.get(&candidate)) {
            Some((run, folder)) => folder.save(&run.state, &run.parameter_names),
            None => Ok(()),
        }
    }

    fn rung_row(&self, rung: usize) -> MetricsRow {
        self.leaderboard.rung_row(
            rung,
            self.cumulative_steps[rung + 1],
            self.specs[0].selection_metric(),
            &self.method_names(),
        )
    }

    fn method_names(&self) -> Vec<&'static str> {
        self.specs.iter().map(|spec| spec.method.name()).collect()
    }

    fn candidate_dir(&self, candidate: usize) -> PathBuf {
        self.checkpoint_root.join(format!("candidate-{candidate}"))
    }
}

/// What was decided before. Where that is not known, neither is how far the candidates may be: then all begins again.
fn load_or_reset(checkpoint_root: &Path, spec: &[u8]) -> Result<Leaderboard> {
    if let Some(ledger) = Leaderboard::load(checkpoint_root, spec) {
        return Ok(ledger);
    }
    remove_dir(checkpoint_root)?;
    std::fs::create_dir_all(checkpoint_root)
        .with_context(|| format!("making the checkpoint folder {}", checkpoint_root.display()))?;
    let ledger = Leaderboard::new(spec);
    ledger.save(checkpoint_root)?;
    Ok(ledger)
}

fn remove_dir(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
