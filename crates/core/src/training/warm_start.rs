//! Warm start: a job that starts from a published adapter, and how much of the adapter's settings and head it can reuse.
//!
//! The adapter is trained further with the tensors that were published: the rows of a soft prompt, not the network that produced
//! them.

use crate::adapter::Config;
use crate::error::{Error, FieldError, Result};
use crate::model::{BaseModel, Pooling};
use crate::task::{self, RowSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Adapter that a job starts from, resolved at submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FromAdapter {
    /// sha256 over its files, hexadecimal.
    pub version: String,
    pub head: HeadReuse,
    /// Reason for a fresh head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Reuse of the adapter's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadReuse {
    /// The task and the labels are the same; the head is reused.
    Kept,
    /// The job has additional labels: known labels keep their rows, the others get rows from a linear probe.
    Extended,
    /// The head does not fit and is initialised as in a job without an adapter.
    Fresh,
}

/// Settings of the adapter that a request starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceAdapter {
    pub version: String,
    pub task: task::Config,
    pub method: Config,
    /// In the order of its head's rows.
    pub labels: Vec<String>,
    pub max_length: usize,
}

/// Settings of a method that affect training alone: a job may change them.
const TRAINING_ONLY_SETTINGS: [&str; 2] = ["dropout", "learning_rate_ratio"];

/// Most labels that a note lists.
const MAX_NAMED_LABELS: usize = 5;

impl SourceAdapter {
    /// Pooling of the adapter.
    pub fn pooling(&self, base: &BaseModel) -> Pooling {
        self.task.pooling().unwrap_or(base.info().default_pooling)
    }

    /// The adapter's method with the training settings of the resolved method `requested`. Any other difference is an error.
    pub fn merge_method(
        &self,
        requested: &Config,
        base: &BaseModel,
        pooling: Pooling,
        errors: &mut Vec<FieldError>,
    ) -> Result<Config> {
        let own = match self.method.resolve(base, pooling) {
            Ok(resolved) => resolved,
            // An imported method may have settings that a request could not have.
            Err(Error::Invalid(_)) => self.method.clone(),
            Err(other) => return Err(other),
        };
        let [Value::Object(adapter_settings), Value::Object(requested_settings)] = [json!(own), json!(requested)]
        else {
            return Err(Error::internal("a method is an object"));
        };
        let mut merged = json!(self.method);
        for field in adapter_settings.keys().chain(requested_settings.keys()).collect::<BTreeSet<_>>() {
            let (adapter_value, requested_value) = (adapter_settings.get(field), requested_settings.get(field));
            match (adapter_value == requested_value, TRAINING_ONLY_SETTINGS.contains(&field.as_str())) {
                (true, _) => {}
                (false, true) => merged[field] = json!(requested_value),
                (false, false) => {
                    let adapter_text = adapter_value.map_or_else(|| "nothing".to_string(), Value::to_string);
                    let message = format!(
                        "the adapter that the job starts from has the {field} {adapter_text}: leave \"method\" out, or train \
                         without \"from_adapter\""
                    );
                    errors.push(FieldError::at_pointer(format!("/method/{field}"), message));
                    // Differences between settings of two methods are not meaningful.
                    if field == "type" {
                        errors.retain(|error| {
                            error.location == crate::error::Location::Pointer("/method/type".to_string())
                        });
                        break;
                    }
                }
            }
        }
        Ok(serde_json::from_value(merged).unwrap_or_else(|_| self.method.clone()))
    }

    /// Reuse of the head in a job with this task, whose pooling is resolved, and these labels, sorted. Also returns the order of
    /// the job's labels.
    pub fn head_reuse(
        &self,
        task: &task::Config,
        base: &BaseModel,
        labels: Vec<String>,
    ) -> (Option<FromAdapter>, Vec<String>) {
        let from_adapter = |head, note| Some(FromAdapter { version: self.version.clone(), head, note });
        let adapter_task = self.task.clone().with_pooling(self.pooling(base));
        if adapter_task.head_outputs(&[]).is_none() && task.head_outputs(&[]).is_none() {
            // Neither task has a trained head.
            return (from_adapter(HeadReuse::Kept, None), labels);
        }
        if adapter_task != *task {
            let note = format!("the adapter's task is {}, the job's is {}", json!(adapter_task), json!(task));
            return (from_adapter(HeadReuse::Fresh, Some(note)), labels);
        }
        let missing: Vec<&String> = self.labels.iter().filter(|label| labels.binary_search(label).is_err()).collect();
        if !missing.is_empty() {
            let listed =
                missing.iter().take(MAX_NAMED_LABELS).map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ");
            let count = missing.len();
            let note = format!("the dataset has no example of {count} of the adapter's labels, such as {listed}");
            return (from_adapter(HeadReuse::Fresh, Some(note)), labels);
        }
        let adapter_labels: BTreeSet<&String> = self.labels.iter().collect();
        let new_labels: Vec<String> = labels.into_iter().filter(|label| !adapter_labels.contains(label)).collect();
        let reuse = if new_labels.is_empty() { HeadReuse::Kept } else { HeadReuse::Extended };
        (from_adapter(reuse, None), self.labels.iter().cloned().chain(new_labels).collect())
    }
}

/// Task of a job that names none: the adapter's where it can be trained on the rows, else the default task of the rows.
pub fn resolve_task(source_adapter: &SourceAdapter, row_schema: RowSchema) -> task::Config {
    match source_adapter.task.row_schemas().contains(&row_schema) {
        true => source_adapter.task.clone(),
        false => row_schema.default_task(),
    }
}
