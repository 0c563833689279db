//! Result file of a job: its metrics by step, as CSV.

use super::events::{metrics_of, read_all};
use crate::http::state::AppState;
use crate::store::{EventKind, Status};
use espalier_core::error::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use uuid::Uuid;

const COLUMNS: [&str; 4] = ["train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy"];
const HEADER: [&str; 5] = ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"];

pub struct ResultFile {
    pub csv: String,
    /// Seconds since 1970.
    pub created_at: i64,
}

/// # Errors
/// `NotFound` for a job that has not succeeded; errors of the store.
pub async fn read(state: &AppState, owner: &str, job: Uuid) -> Result<ResultFile> {
    let job = state.store.job(owner, job).await?;
    if job.status != Status::Succeeded {
        let detail = "the job has no result file: it has not succeeded";
        return Err(Error::not_found("not_found", detail));
    }
    let mut rows: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
    for event in read_all(state, job.id).await?.iter().filter(|event| event.kind == EventKind::Metrics) {
        let metrics = metrics_of(event);
        if let Some(step) = event.data["step"].as_u64().filter(|_| !metrics.is_empty()) {
            rows.entry(step).or_default().extend(metrics);
        }
    }
    let created_at = job.finished_at.unwrap_or(job.created_at).timestamp();
    Ok(ResultFile { csv: to_csv(&rows), created_at })
}

/// All fields are numbers or empty, so that none needs quotes.
fn to_csv(rows: &BTreeMap<u64, Map<String, Value>>) -> String {
    let mut csv = format!("{}\n", HEADER.join(","));
    for (step, metrics) in rows {
        let values = COLUMNS.map(|name| metrics.get(name).map(Value::to_string).unwrap_or_default());
        csv.push_str(&format!("{step},{}\n", values.join(",")));
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_have_a_row_each_and_gaps_are_empty() {
        let metrics = |value: Value| value.as_object().unwrap().clone();
        let rows = BTreeMap::from([
            (1, metrics(json!({"train_loss": 0.5}))),
            (2, metrics(json!({"train_loss": 0.25, "valid_loss": 1, "valid_mean_token_accuracy": 0.75}))),
        ]);
        assert_eq!(
            to_csv(&rows),
            "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.5,,,\n2,0.25,,1,0.75\n"
        );
    }
}
