//! Bracket of successive halving: trains the surviving candidates rung by rung.
//!
//! Within a rung the candidates train one after the other, each with its own checkpoints. A rung is finished when the leaderboard is
//! on disk, so a killed job resumes from the last checkpoint of each surviving candidate. The candidates share the cached features of
//! the frozen base.

use super::leaderboard::{self, CandidateResult, Leaderboard, ResourceSchedule, Rung};
use super::spec::SuccessiveHalvingSpec;
use crate::error::{Context, Error, Result};
use crate::model::BaseModel;
use crate::training::checkpoint::{CheckpointDir, Score};
use crate::training::job::{Dirs, HalvingResult, Outcome, Settings, TrainingData, TrainingResult};
use crate::training::job_context::JobContext;
use crate::training::progress::{CandidateSegment, Interrupted, MetricsRow, Progress, ProgressReporter, StopReason};
use crate::training::spec::Spec;
use crate::training::tokenized_dataset::TokenizedDataset;
use crate::training::trainer::Trainer;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// State of a successive halving job.
struct Bracket<'a> {
    context: &'a JobContext<'a>,
    specs: &'a [Spec],
    dataset: TokenizedDataset,
    schedule: ResourceSchedule,
    rungs: Vec<Rung>,
    /// Steps of all candidates before each rung, and last in total.
    cumulative_steps: Vec<u64>,
    leaderboard: Leaderboard,
    checkpoint_root: &'a Path,
    /// Runs in memory, with their checkpoint folders.
    trainers: BTreeMap<usize, (Trainer<'a>, CheckpointDir)>,
    /// Candidate that is training.
    active: Option<usize>,
}

/// Runs to the end, or until `on_progress` stops the job. Resumes from the leaderboard and the checkpoints on disk.
///
/// # Errors
/// As [`crate::training::train`]; `Invalid` (`race_without_validation`) without validation examples.
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
        Ok(dataset) => dataset,
        Err(interrupted) => return Outcome::new(Err(interrupted), || Ok(())),
    };
    let mut bracket = Bracket::new(spec, &specs, dataset, &context, &dirs.checkpoints)?;
    let result = bracket.run_to_end(&mut reporter);
    Outcome::new(result, || bracket.save_active())
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
            let advice = "successive halving needs validation examples, and there are none: give more examples or a larger \
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
        let cumulative_steps = leaderboard::cumulative_steps(&rungs, specs.len());
        let leaderboard =
            load_or_reset(checkpoint_root, &serde_json::to_vec(spec).context("serializing the specification")?)?;
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
        let winner = *surviving.first().ok_or_else(|| Error::internal("no candidate survives the last rung"))?;
        self.load_candidate(winner, reporter)?;
        let (trainer, _) = &self.trainers[&winner];
        let mut result = trainer.build_result(self.context.base, reporter)?;
        result.metrics_rows.extend((0..self.rungs.len()).map(|number| self.rung_row(number)));
        let table =
            self.leaderboard.to_json(winner, trainer.spec.selection_metric(), &self.method_names(), &self.rungs);
        result.successive_halving = Some(HalvingResult { winner, table });
        Ok(result)
    }

    /// Trains the surviving candidates to the rung's step, and drops the worst.
    fn run_rung(&mut self, rung: usize, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        let (mut results, mut last_divergence) = (Vec::new(), None);
        for (position, candidate) in self.leaderboard.surviving(self.specs.len()).into_iter().enumerate() {
            let score = match self.train_to_rung(candidate, rung, position as u64, reporter) {
                Ok(score) => score,
                // A job of its own would fail; the other candidates continue.
                Err(Interrupted::Error(error)) if error.code() == "training_diverged" => {
                    tracing::info!(candidate, %error, "candidate diverged");
                    last_divergence = Some(error);
                    None
                }
                Err(interrupted) => return Err(interrupted),
            };
            let examples = self.schedule.examples_seen(
                self.trainers.get(&candidate).map_or(0, |(trainer, _)| trainer.state.trainer_state.step),
            );
            results.push(CandidateResult { candidate, examples, score, dropped: false });
        }
        match last_divergence {
            Some(error) if results.iter().all(|result| result.score.is_none()) => return Err(error.into()),
            _ => self.leaderboard.record_rung(results, self.rungs[rung].survivors),
        }
        self.active = None;
        self.leaderboard.save(self.checkpoint_root)?;
        for dropped in self.leaderboard.rung_results[rung].iter().filter(|result| result.dropped) {
            // A crash before the removal leaves files that are never read and are removed with the job's folder.
            self.trainers.remove(&dropped.candidate);
            remove_dir(&self.candidate_dir(dropped.candidate))?;
        }
        tracing::info!(rung = rung + 1, surviving = ?self.leaderboard.surviving(self.specs.len()), "rung finished");
        Ok(())
    }

    /// Trains a candidate to a rung and returns its score; `None` where the score is not finite.
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
            self.trainers.get_mut(&candidate).ok_or_else(|| Error::internal("the candidate was loaded above"))?;
        trainer.train_until(end, checkpoint_dir, self.context.settings, reporter)?;
        let score = trainer.best_score(reporter)?;
        Ok((score.score.is_finite() && score.loss.is_finite()).then_some(score))
    }

    /// Starts a candidate, or loads its checkpoint, unless it is in memory.
    fn load_candidate(&mut self, candidate: usize, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        if self.trainers.contains_key(&candidate) {
            return Ok(());
        }
        let spec = &self.specs[candidate];
        let spec_json = serde_json::to_vec(spec).context("serializing a candidate's specification")?;
        let mut checkpoint_dir = CheckpointDir::new(self.candidate_dir(candidate), &spec_json)?;
        let trainer = Trainer::resume_or_start(
            self.context,
            spec,
            self.dataset.for_method(spec),
            None,
            &mut checkpoint_dir,
            reporter,
        )?;
        self.trainers.insert(candidate, (trainer, checkpoint_dir));
        Ok(())
    }

    /// Saves the candidate that is training; the state of the others is on disk.
    fn save_active(&mut self) -> Result<()> {
        match self.active.and_then(|candidate| self.trainers.get_mut(&candidate)) {
            Some((trainer, folder)) => folder.save(&trainer.state, &trainer.parameter_names),
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

/// Leaderboard on disk. Without one that verifies, the candidates' checkpoints are removed and the job starts again.
fn load_or_reset(checkpoint_root: &Path, spec: &[u8]) -> Result<Leaderboard> {
    if let Some(leaderboard) = Leaderboard::load(checkpoint_root, spec) {
        return Ok(leaderboard);
    }
    remove_dir(checkpoint_root)?;
    std::fs::create_dir_all(checkpoint_root)
        .with_context(|| format!("creating the checkpoint folder {}", checkpoint_root.display()))?;
    let leaderboard = Leaderboard::new(spec);
    leaderboard.save(checkpoint_root)?;
    Ok(leaderboard)
}

fn remove_dir(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
