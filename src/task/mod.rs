//! What is asked of an adapted base: one file per task.
//!
//! A task sees hidden states or pooled rows, never the architecture, and no method. It knows nothing of files or jobs.

pub mod calibration;
pub mod head;
pub mod metrics;
pub mod regression;
pub mod sequence_classification;
pub mod start;
pub mod targets;

use crate::compute::kernels::Activation;
use crate::model::{HeadForm, Pooling};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The task of a job, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Task)]
pub enum Config {
    SequenceClassification(sequence_classification::Config),
    Regression(regression::Config),
}

/// The words that `type` may be.
pub const NAMES: [&str; 2] = ["sequence_classification", "regression"];

/// The field of a row that says what it teaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One class.
    #[default]
    Label,
    /// Any number of classes.
    Labels,
    /// A number.
    Value,
}

impl Shape {
    pub const ALL: [Self; 3] = [Self::Label, Self::Labels, Self::Value];

    pub fn field(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Labels => "labels",
            Self::Value => "value",
        }
    }

    /// The task that is meant where only the data says one.
    pub fn task(self) -> Config {
        match self {
            Self::Label => Config::default(),
            Self::Labels => {
                let config = sequence_classification::Config { multi_label: true, ..Default::default() };
                Config::SequenceClassification(config)
            }
            Self::Value => Config::Regression(regression::Config::default()),
        }
    }
}

impl Config {
    /// The word in `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SequenceClassification(_) => "sequence_classification",
            Self::Regression(_) => "regression",
        }
    }

    pub fn shape(&self) -> Shape {
        match self {
            Self::SequenceClassification(config) if config.multi_label => Shape::Labels,
            Self::SequenceClassification(_) => Shape::Label,
            Self::Regression(_) => Shape::Value,
        }
    }

    pub fn pooling(&self) -> Option<Pooling> {
        match self {
            Self::SequenceClassification(config) => config.pooling,
            Self::Regression(config) => config.pooling,
        }
    }

    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        match &mut self {
            Self::SequenceClassification(config) => config.pooling = Some(pooling),
            Self::Regression(config) => config.pooling = Some(pooling),
        }
        self
    }

    /// The activation of the head's dense layer, where it has one.
    pub fn dense(&self) -> Option<Activation> {
        let head = match self {
            Self::SequenceClassification(config) => &config.head,
            Self::Regression(config) => &config.head,
        };
        head.as_ref().and_then(head::Config::activation)
    }

    /// With the head that this base's checkpoints have, where the task says none and pools as they do.
    pub fn with_head_of(mut self, form: HeadForm) -> Self {
        let pools_alike = self.pooling() == Some(Pooling::Cls);
        let own = match &mut self {
            Self::SequenceClassification(config) => &mut config.head,
            Self::Regression(config) => &mut config.head,
        };
        if let (None, true, Some(activation)) = (&own, pools_alike, form.activation()) {
            *own = Some(head::Config::Dense(head::Dense { activation }));
        }
        self
    }

    /// Rows of the head for a job or an adapter with these labels.
    pub fn outputs(&self, labels: &[String]) -> usize {
        match self {
            Self::SequenceClassification(_) => labels.len(),
            Self::Regression(_) => 1,
        }
    }

    /// What early stopping and the choice of the best epoch may go by, the default first.
    pub fn metrics(&self) -> &'static [&'static str] {
        match self.shape() {
            Shape::Label => &["accuracy", "loss", "macro_f1"],
            Shape::Labels => &["micro_f1", "loss", "macro_f1", "exact_match"],
            Shape::Value => &["loss", "mean_absolute_error", "pearson", "spearman", "r2"],
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::SequenceClassification(sequence_classification::Config::default())
    }
}

/// One row of a dataset, as a task understands it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The line of the file where the row begins, the header being 1; for inline examples their index.
    pub line: u64,
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    pub target: Target,
}

/// What an example teaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Label(String),
    /// Each once.
    Labels(Vec<String>),
    Value(f64),
}

impl Target {
    /// The labels that it names.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Label(label) => std::slice::from_ref(label),
            Self::Labels(labels) => labels,
            Self::Value(_) => &[],
        }
    }
}

/// One answer of a task.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Prediction {
    Classification(sequence_classification::Prediction),
    Labels(sequence_classification::LabelSet),
    Value(regression::Prediction),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_known_by_its_name_alone_and_goes_by_a_metric() {
        for name in NAMES {
            let config: Config = serde_json::from_value(serde_json::json!({"type": name})).unwrap();
            assert_eq!(config.name(), name);
        }
        for shape in Shape::ALL {
            assert_eq!(shape.task().shape(), shape);
            assert!(shape.task().metrics().contains(&"loss"));
        }
    }
}
