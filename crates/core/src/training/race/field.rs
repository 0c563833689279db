//! A race on its way: who is left, who steps next, and what is on disk.
//!
//! Within a rung one candidate after the other goes on to the rung's step, each with checkpoints of its own; a rung is
//! decided when the ledger is on disk. So a race that is killed at any moment goes on from the last checkpoint of each who
//! is left. What the frozen base computes is shared through the remembered rows, which makes it needless to hold the
//! candidates to the same batch.

use super::ledger::{Judged, Ledger, Verdict};
use super::rungs::{self, Course, Rung};
use super::{Finish, Race};
use crate::error::{Context, Error, Result};
use crate::model::Base;
use crate::training::checkpoint::Folder;
use crate::training::prepare::Prepared;
use crate::training::progress::Row;
use crate::training::run::{Halt, Run};
use crate::training::shared::Shared;
use crate::training::speaker::{Leg, Speaker};
use crate::training::{Data, Folders, Outcome, Progress, Settings, Spec, Stop, Trained, finish};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Field<'a> {
    shared: &'a Shared<'a>,
    specs: &'a [Spec],
    prepared: Prepared,
    course: Course,
    rungs: Vec<Rung>,
    /// Of all candidates together, before each rung and in all.
    steps: Vec<u64>,
    ledger: Ledger,
    root: &'a Path,
    /// Those that were started or read back, with their folders.
    runs: BTreeMap<usize, (Run<'a>, Folder)>,
    /// Who steps.
    stepping: Option<usize>,
}

/// Races to the end, or until `report` says stop. Resumes from what is on disk.
///
/// # Errors
/// As [`crate::training::train`]; `Invalid` (`race_without_validation`) where nothing is left to decide by.
pub fn run(
    base: &Arc<Base>,
    race: &Race,
    data: &Data,
    folders: &Folders,
    settings: &Settings,
    report: &mut dyn FnMut(&Progress) -> ControlFlow<Stop>,
) -> Result<Outcome> {
    let specs: Vec<Spec> = (0..race.method.candidates.len()).map(|candidate| race.spec(candidate)).collect();
    let shared = Shared::new(base, settings, &folders.remembered)?;
    let mut speaker = Speaker::new(report);
    let prepared = match Prepared::new(base, &specs[0], data, &mut speaker) {
        Ok(prepared) => prepared,
        Err(Halt::Stop(stop)) => return Ok(Outcome::Stopped(stop)),
        Err(Halt::Error(error)) => return Err(error),
    };
    let mut field = Field::new(race, &specs, prepared, &shared, &folders.checkpoints)?;
    match field.go(&mut speaker) {
        Ok(trained) => Ok(Outcome::Finished(Box::new(trained))),
        Err(Halt::Error(error)) => Err(error),
        Err(Halt::Stop(stop)) => {
            if matches!(stop, Stop::Pause | Stop::Release) {
                field.save()?;
            }
            Ok(Outcome::Stopped(stop))
        }
    }
}

impl<'a> Field<'a> {
    fn new(race: &Race, specs: &'a [Spec], prepared: Prepared, shared: &'a Shared<'a>, root: &'a Path) -> Result<Self> {
        if prepared.validation.is_empty() {
            let advice = "a race is decided on validation examples, and there are none: give more examples or a larger \
                          validation fraction";
            return Err(Error::invalid("race_without_validation", advice));
        }
        let settings = &specs[0].hyperparameters;
        let course = Course {
            examples: prepared.training.len() as u64,
            step_examples: settings.step_examples() as u64,
            total_steps: settings.total_steps(prepared.training.len()),
        };
        let rungs = course.rungs(specs.len(), race.method.budget.first_rung);
        let steps = rungs::steps(&rungs, specs.len());
        let ledger = open(root, &serde_json::to_vec(race).context("writing the race's specification down")?)?;
        Ok(Self { shared, specs, prepared, course, rungs, steps, ledger, root, runs: BTreeMap::new(), stepping: None })
    }

    fn go(&mut self, speaker: &mut Speaker) -> Result<Trained, Halt> {
        for number in 0..self.rungs.len() {
            if number == self.ledger.rungs.len() {
                self.rung(number, speaker)?;
            }
            speaker.row(self.row(number));
        }
        let live = self.ledger.live(self.specs.len());
        let winner = *live.first().ok_or_else(|| Error::internal("a race has a winner"))?;
        self.enter(winner, speaker)?;
        let (run, _) = &self.runs[&winner];
        let mut trained = finish(self.shared.base, run, speaker)?;
        trained.rows.extend((0..self.rungs.len()).map(|number| self.row(number)));
        let table = self.ledger.table(winner, run.spec.metric(), &self.names(), &self.rungs);
        trained.race = Some(Finish { winner, table });
        Ok(trained)
    }

    /// Takes everybody who is left to the rung's step, and drops those that do worst.
    fn rung(&mut self, number: usize, speaker: &mut Speaker) -> Result<(), Halt> {
        let (mut judged, mut diverged) = (Vec::new(), None);
        for (place, candidate) in self.ledger.live(self.specs.len()).into_iter().enumerate() {
            let verdict = match self.leg(candidate, number, place as u64, speaker) {
                Ok(verdict) => verdict,
                // Its own job would fail; the race goes on without it.
                Err(Halt::Error(error)) if error.code() == "training_diverged" => {
                    tracing::info!(candidate, %error, "a candidate is out of the race");
                    diverged = Some(error);
                    None
                }
                Err(halt) => return Err(halt),
            };
            let examples = self.course.seen(self.runs.get(&candidate).map_or(0, |(run, _)| run.state.counters.step));
            judged.push(Judged { candidate, examples, verdict, dropped: false });
        }
        match diverged {
            Some(error) if judged.iter().all(|judged| judged.verdict.is_none()) => return Err(error.into()),
            _ => self.ledger.judge(judged, self.rungs[number].keep),
        }
        self.stepping = None;
        self.ledger.save(self.root)?;
        for dropped in self.ledger.rungs[number].iter().filter(|judged| judged.dropped) {
            // Read back they are never: a kill in between leaves files that go with the job's own.
            self.runs.remove(&dropped.candidate);
            remove(&self.place(dropped.candidate))?;
        }
        tracing::info!(rung = number + 1, left = ?self.ledger.live(self.specs.len()), "a rung of the race is decided");
        Ok(())
    }

    /// One candidate's way to a rung, and how well it does there; `None` for figures that are no numbers.
    fn leg(
        &mut self,
        candidate: usize,
        number: usize,
        place: u64,
        speaker: &mut Speaker,
    ) -> Result<Option<Verdict>, Halt> {
        let from = number.checked_sub(1).map_or(0, |before| self.rungs[before].step);
        let to = self.rungs[number].step;
        let total = self.steps[self.steps.len() - 1];
        speaker.leg(Leg { before: self.steps[number] + place * (to - from), from, total });
        self.enter(candidate, speaker)?;
        self.stepping = Some(candidate);
        let (run, folder) =
            self.runs.get_mut(&candidate).ok_or_else(|| Error::internal("a candidate is in its race"))?;
        run.go(to, folder, self.shared.settings, speaker)?;
        let (score, loss) = run.verdict(speaker)?;
        Ok((score.is_finite() && loss.is_finite()).then_some(Verdict { score, loss }))
    }

    /// Starts a candidate, or reads it back.
    fn enter(&mut self, candidate: usize, speaker: &mut Speaker) -> Result<(), Halt> {
        if self.runs.contains_key(&candidate) {
            return Ok(());
        }
        let spec = &self.specs[candidate];
        let identity = serde_json::to_vec(spec).context("writing a candidate's specification down")?;
        let folder = Folder::new(self.place(candidate), &identity)?;
        let run = Run::start(self.shared, spec, self.prepared.under(spec), None, &folder, speaker)?;
        self.runs.insert(candidate, (run, folder));
        Ok(())
    }

    /// The others are on disk as they are.
    fn save(&self) -> Result<()> {
        match self.stepping.and_then(|candidate| self.runs.get(&candidate)) {
            Some((run, folder)) => folder.save(&run.state, &run.names),
            None => Ok(()),
        }
    }

    fn row(&self, number: usize) -> Row {
        self.ledger.row(number, self.steps[number + 1], self.specs[0].metric(), &self.names())
    }

    fn names(&self) -> Vec<&'static str> {
        self.specs.iter().map(|spec| spec.method.name()).collect()
    }

    fn place(&self, candidate: usize) -> PathBuf {
        self.root.join(format!("candidate-{candidate}"))
    }
}

/// What was decided before. Where that is not known, neither is how far the candidates may be: then all begins again.
fn open(root: &Path, spec: &[u8]) -> Result<Ledger> {
    if let Some(ledger) = Ledger::load(root, spec) {
        return Ok(ledger);
    }
    remove(root)?;
    std::fs::create_dir_all(root).with_context(|| format!("making the checkpoint folder {}", root.display()))?;
    let ledger = Ledger::new(spec);
    ledger.save(root)?;
    Ok(ledger)
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
