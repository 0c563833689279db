//! Leaderboard of successive halving: the results of the finished rungs, on disk after each rung, and the final table.
//!
//! The file begins with the sha256 of its content. If it does not verify, the job starts again and ends with the same result.
//!
//! [`ResourceSchedule`] places the rungs; the resource is the number of examples that a candidate has seen.

use crate::durable_fs;
use crate::error::{Context, Result};
use crate::task::metrics::is_lower_better;
use crate::training::checkpoint::Score;
use crate::training::progress::MetricsRow;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const FILE_NAME: &str = "race.json";

/// Result of a candidate at a rung.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateResult {
    pub candidate: usize,
    /// Examples that the candidate has seen.
    pub examples: u64,
    /// Score of its best evaluation so far; `None` where training diverged.
    pub score: Option<Score>,
    pub dropped: bool,
}

/// Results by rung.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Leaderboard {
    /// sha256 of the job's specification.
    spec_hash: String,
    pub rung_results: Vec<Vec<CandidateResult>>,
}

impl Leaderboard {
    pub fn new(spec: &[u8]) -> Self {
        Self { spec_hash: hex::encode(Sha256::digest(spec)), rung_results: Vec::new() }
    }

    /// Leaderboard of an earlier attempt; `None` without one that verifies.
    pub fn load(folder: &Path, spec: &[u8]) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(FILE_NAME)).ok()?;
        let (hash, body) = text.split_once('\n')?;
        let leaderboard: Option<Self> = serde_json::from_str(body).ok();
        let is_intact = hash == hex::encode(Sha256::digest(body.as_bytes()));
        let verified = leaderboard.filter(|board| is_intact && board.spec_hash == hex::encode(Sha256::digest(spec)));
        if verified.is_none() {
            tracing::warn!("leaderboard does not verify: successive halving starts again");
        }
        verified
    }

    pub fn save(&self, folder: &Path) -> Result<()> {
        let body = serde_json::to_string(self).context("serializing the leaderboard")?;
        let text = format!("{}\n{body}", hex::encode(Sha256::digest(body.as_bytes())));
        durable_fs::write_atomically(folder, FILE_NAME, text.as_bytes()).context("writing the leaderboard")
    }

    /// Candidates that are not dropped, in order.
    pub fn surviving(&self, candidates: usize) -> Vec<usize> {
        let is_dropped = |candidate: &usize| {
            self.rung_results.iter().flatten().any(|result| result.candidate == *candidate && result.dropped)
        };
        (0..candidates).filter(|candidate| !is_dropped(candidate)).collect()
    }

    /// Records a rung and drops the worst candidates until `survivors` are left. Candidates are compared by score, then by loss, then
    /// by index.
    pub fn record_rung(&mut self, mut results: Vec<CandidateResult>, survivors: usize) {
        let mut order: Vec<usize> = (0..results.len()).collect();
        order.sort_by(|left, right| {
            let sort_key =
                |index: &usize| results[*index].score.map_or((f64::NEG_INFINITY, f64::INFINITY), |v| (v.score, v.loss));
            let ((left_score, left_loss), (right_score, right_loss)) = (sort_key(left), sort_key(right));
            right_score.total_cmp(&left_score).then(left_loss.total_cmp(&right_loss)).then(left.cmp(right))
        });
        for (rank, index) in order.into_iter().enumerate() {
            results[index].dropped = rank >= survivors || results[index].score.is_none();
        }
        self.rung_results.push(results);
    }

    /// Metrics row of a rung, counted from 0. `step` counts the steps of all candidates.
    pub fn rung_row(&self, rung: usize, step: u64, metric: &str, names: &[&str]) -> MetricsRow {
        let candidates: Vec<Value> =
            self.rung_results[rung].iter().map(|result| result_json(result, rung, metric, names)).collect();
        let metrics = json!({"rung": rung + 1, "metric": metric, "candidates": candidates});
        MetricsRow { step, split: "race".to_string(), metrics }
    }

    /// Table of all rungs, for the job's metrics.
    pub fn to_json(&self, winner: usize, metric: &str, names: &[&str], rungs: &[Rung]) -> Value {
        let rows = self.rung_results.iter().enumerate();
        let rows: Vec<Value> = rows
            .flat_map(|(rung, all)| all.iter().map(move |result| result_json(result, rung, metric, names)))
            .collect();
        json!({
            "winner": winner,
            "method": names[winner],
            "metric": metric,
            "rungs": rungs.len(),
            "table": rows,
        })
    }
}

fn result_json(result: &CandidateResult, rung: usize, metric: &str, names: &[&str]) -> Value {
    let mut row = json!({
        "candidate": result.candidate,
        "method": names[result.candidate],
        "rung": rung + 1,
        "examples": result.examples,
        "loss": result.score.map(|score| score.loss),
        "dropped": result.dropped,
    });
    // The score of a metric where lower is better is its negative.
    let metric_value = |score: f64| if is_lower_better(metric) { -score } else { score };
    row[metric] = json!(result.score.map(|score| metric_value(score.score)));
    row
}

/// Rung: the surviving candidates train to this step, and the best of them survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    pub step: u64,
    pub survivors: usize,
}

/// Examples and steps of a full run.
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

    fn result(candidate: usize, score: Option<(f64, f64)>) -> CandidateResult {
        let score = score.map(|(score, loss)| Score { score, loss });
        CandidateResult { candidate, examples: 64, score, dropped: false }
    }

    #[test]
    fn the_worse_half_is_dropped_and_ties_go_by_loss_then_by_order() {
        let mut leaderboard = Leaderboard::new(b"race");
        let scores = [Some((0.5, 1.0)), Some((0.5, 0.9)), None, Some((0.9, 3.0)), Some((0.5, 0.9))];
        leaderboard
            .record_rung(scores.into_iter().enumerate().map(|(index, verdict)| result(index, verdict)).collect(), 3);
        assert_eq!(leaderboard.surviving(5), [1, 3, 4]);
        leaderboard.record_rung([1, 3, 4].map(|index| result(index, scores[index])).to_vec(), 2);
        assert_eq!(leaderboard.surviving(5), [1, 3]);
        let table =
            leaderboard.to_json(3, "accuracy", &["a", "b", "c", "d", "e"], &[Rung { step: 2, survivors: 3 }; 2]);
        assert_eq!((&table["winner"], table["table"].as_array().unwrap().len()), (&json!(3), 8));
        assert_eq!((&table["table"][2]["accuracy"], &table["table"][3]["accuracy"]), (&json!(null), &json!(0.9)));
        let row = leaderboard.rung_row(1, 9, "loss", &["a", "b", "c", "d", "e"]);
        assert_eq!((row.step, &row.metrics["candidates"][0]["loss"]), (9, &json!(-0.5)));
    }

    #[test]
    fn a_leaderboard_is_reloaded_and_a_damaged_or_foreign_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut leaderboard = Leaderboard::new(b"race");
        leaderboard.record_rung(vec![result(0, Some((1.0 / 3.0, 0.1 + 0.2))), result(1, None)], 1);
        leaderboard.save(folder.path()).unwrap();
        assert_eq!(Leaderboard::load(folder.path(), b"race"), Some(leaderboard));
        assert_eq!(Leaderboard::load(folder.path(), b"other"), None);
        let file = folder.path().join(FILE_NAME);
        let text = std::fs::read_to_string(&file).unwrap().replace("64", "65");
        std::fs::write(&file, text).unwrap();
        assert_eq!(Leaderboard::load(folder.path(), b"race"), None);
    }
}

#[cfg(test)]
mod rungs_tests {
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
