//! What is asked of an adapted base: one file per task.
//!
//! A task sees hidden states or pooled rows, never the architecture, and no method. It knows nothing of files or jobs.

pub mod calibration;
pub mod head;
pub mod metrics;
pub mod sequence_classification;
pub mod start;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The task of a job, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Task)]
pub enum Config {
    SequenceClassification(sequence_classification::Config),
}

impl Default for Config {
    fn default() -> Self {
        Self::SequenceClassification(sequence_classification::Config::default())
    }
}

/// One row of a dataset, as a task understands it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The line of the file where the row begins, the header being 1; for inline examples their index.
    pub line: u64,
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    pub target: Target,
}

/// What an example teaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Label(String),
}

/// One answer of a task.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Prediction {
    Classification(sequence_classification::Prediction),
    Embedding(Embedding),
}

/// What the bare base answers: the pooled features of the input.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Embedding {
    pub embedding: Vec<f32>,
}

/// One thing to predict for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
}
