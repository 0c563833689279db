//! What was decided in a race so far: on disk after each rung, and in the end its table.
//!
//! The file is written beside, synced and renamed, as checkpoints are, and says its own sha256. One that does not verify is
//! as none: the race begins again, and ends the same way. Knows nothing of how candidates are trained.

use super::rungs::Rung;
use crate::error::{Context, Result};
use crate::model::weights::hex;
use crate::task::metrics::is_error;
use crate::training::checkpoint;
use crate::training::progress::Row;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const FILE: &str = "race.json";

/// A rung that is decided, as one row for each candidate that reached it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    pub candidate: usize,
    /// Examples that it has seen.
    pub examples: u64,
    /// `None` for one whose loss was no number any more.
    pub verdict: Option<Verdict>,
    pub dropped: bool,
}

/// The best evaluation of a candidate so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Higher is better.
    pub score: f64,
    pub loss: f64,
}

/// By rung.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// sha256 of the race's specification.
    spec: String,
    pub rungs: Vec<Vec<Judged>>,
}

impl Ledger {
    pub fn new(spec: &[u8]) -> Self {
        Self { spec: hex(&Sha256::digest(spec)), rungs: Vec::new() }
    }

    /// What an earlier attempt at this race has decided; `None` where nothing is there that verifies.
    pub fn load(folder: &Path, spec: &[u8]) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(FILE)).ok()?;
        let (hash, body) = text.split_once('\n')?;
        let ledger: Option<Self> = serde_json::from_str(body).ok();
        let is_whole = hash == hex(&Sha256::digest(body.as_bytes()));
        let found = ledger.filter(|ledger| is_whole && ledger.spec == hex(&Sha256::digest(spec)));
        if found.is_none() {
            tracing::warn!("what was decided in the race does not verify: it begins again");
        }
        found
    }

    pub fn save(&self, folder: &Path) -> Result<()> {
        let body = serde_json::to_string(self).context("writing down what was decided in a race")?;
        let text = format!("{}\n{body}", hex(&Sha256::digest(body.as_bytes())));
        checkpoint::place(folder, FILE, text.as_bytes())
    }

    /// Those who are left of so many, in their order.
    pub fn live(&self, candidates: usize) -> Vec<usize> {
        let dropped = |candidate: &usize| {
            self.rungs.iter().flatten().any(|judged| judged.candidate == *candidate && judged.dropped)
        };
        (0..candidates).filter(|candidate| !dropped(candidate)).collect()
    }

    /// The worst go until `keep` are left: by score, then by loss; where both are equal, the earlier candidate stays.
    pub fn judge(&mut self, mut judged: Vec<Judged>, keep: usize) {
        let mut order: Vec<usize> = (0..judged.len()).collect();
        order.sort_by(|one, other| {
            let key = |index: &usize| {
                judged[*index].verdict.map_or((f64::NEG_INFINITY, f64::INFINITY), |v| (v.score, v.loss))
            };
            let ((score, loss), (other_score, other_loss)) = (key(one), key(other));
            other_score.total_cmp(&score).then(loss.total_cmp(&other_loss)).then(one.cmp(other))
        });
        for (place, index) in order.into_iter().enumerate() {
            judged[index].dropped = place >= keep || judged[index].verdict.is_none();
        }
        self.rungs.push(judged);
    }

    /// The row that tells of a rung, counted from 0. `step` counts the steps of all candidates together.
    pub fn row(&self, rung: usize, step: u64, metric: &str, names: &[&str]) -> Row {
        let candidates: Vec<Value> = self.rungs[rung].iter().map(|judged| told(judged, rung, metric, names)).collect();
        let metrics = json!({"rung": rung + 1, "metric": metric, "candidates": candidates});
        Row { step, split: "race".to_string(), metrics }
    }

    /// Everything, for the job's metrics.
    pub fn table(&self, winner: usize, metric: &str, names: &[&str], rungs: &[Rung]) -> Value {
        let rows = self.rungs.iter().enumerate();
        let rows: Vec<Value> =
            rows.flat_map(|(rung, all)| all.iter().map(move |judged| told(judged, rung, metric, names))).collect();
        json!({
            "winner": winner,
            "method": names[winner],
            "metric": metric,
            "rungs": rungs.len(),
            "table": rows,
        })
    }
}

fn told(judged: &Judged, rung: usize, metric: &str, names: &[&str]) -> Value {
    let mut row = json!({
        "candidate": judged.candidate,
        "method": names[judged.candidate],
        "rung": rung + 1,
        "examples": judged.examples,
        "loss": judged.verdict.map(|verdict| verdict.loss),
        "dropped": judged.dropped,
    });
    // Errors are told as they are; the score is their negative.
    let figure = |score: f64| if is_error(metric) { -score } else { score };
    row[metric] = json!(judged.verdict.map(|verdict| figure(verdict.score)));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(candidate: usize, verdict: Option<(f64, f64)>) -> Judged {
        let verdict = verdict.map(|(score, loss)| Verdict { score, loss });
        Judged { candidate, examples: 64, verdict, dropped: false }
    }

    #[test]
    fn the_worse_half_goes_a_tie_is_broken_by_the_loss_and_then_by_the_order() {
        let mut ledger = Ledger::new(b"race");
        let all = [Some((0.5, 1.0)), Some((0.5, 0.9)), None, Some((0.9, 3.0)), Some((0.5, 0.9))];
        ledger.judge(all.into_iter().enumerate().map(|(index, verdict)| judged(index, verdict)).collect(), 3);
        assert_eq!(ledger.live(5), [1, 3, 4]);
        ledger.judge([1, 3, 4].map(|index| judged(index, all[index])).to_vec(), 2);
        assert_eq!(ledger.live(5), [1, 3]);
        let table = ledger.table(3, "accuracy", &["a", "b", "c", "d", "e"], &[Rung { step: 2, keep: 3 }; 2]);
        assert_eq!((&table["winner"], table["table"].as_array().unwrap().len()), (&json!(3), 8));
        assert_eq!((&table["table"][2]["accuracy"], &table["table"][3]["accuracy"]), (&json!(null), &json!(0.9)));
        let row = ledger.row(1, 9, "loss", &["a", "b", "c", "d", "e"]);
        assert_eq!((row.step, &row.metrics["candidates"][0]["loss"]), (9, &json!(-0.5)));
    }

    #[test]
    fn a_ledger_comes_back_and_a_damaged_or_foreign_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(b"race");
        ledger.judge(vec![judged(0, Some((1.0 / 3.0, 0.1 + 0.2))), judged(1, None)], 1);
        ledger.save(folder.path()).unwrap();
        assert_eq!(Ledger::load(folder.path(), b"race"), Some(ledger));
        assert_eq!(Ledger::load(folder.path(), b"other"), None);
        let file = folder.path().join(FILE);
        let text = std::fs::read_to_string(&file).unwrap().replace("64", "65");
        std::fs::write(&file, text).unwrap();
        assert_eq!(Ledger::load(folder.path(), b"race"), None);
    }
}
