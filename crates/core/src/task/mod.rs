//! Tasks: what an adapter is trained for, and how its outputs become predictions.
//!
//! A task is a folder with its `Config` and an `impl Task for Config`, and one line of `tasks!`. A task imports the shared files
//! of this folder and no other task. The enum [`Config`] is matched by `tasks!` alone; all other code calls [`Task`].

pub mod calibration;
pub mod causal_language_model;
mod confidence;
pub mod decision_threshold;
pub mod embedding;
mod example;
pub mod example_lines;
pub mod head;
pub mod head_init;
mod interface;
pub mod label_weights;
pub mod lm_loss;
pub mod lm_tokenize;
pub mod masked_language_model;
pub mod metrics;
pub mod objective;
mod output_head;
pub mod preference;
pub mod regression;
pub mod row_schema;
pub mod row_targets;
mod scale;
pub mod sequence_classification;
mod split;
pub mod text_key;
mod threshold_smoothing;
pub mod token_classification;
pub mod value_range;
pub mod word_spans;

pub use decision_threshold::{Threshold, Thresholds};
pub use embedding::Embedding;
pub use example::{Conversation, Example, Input, Target};
pub use interface::{InputProblem, PostprocessContext, Task, TaskDefaults, UntrainableRows};
pub use output_head::{HeadKind, HeadRows, HeadSpec, HeadType, OutputHead, RowSelection, l2_normalize};
pub use row_schema::RowSchema;
pub use scale::Scale;
pub use split::Split;
pub use token_classification::tag_scheme;

use crate::model::{ClassificationHeadSpec, Pooling};
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};
use utoipa::ToSchema;

/// Makes the enum [`Config`], the list of task types, and the dispatch to [`Task`]. The module's name is the value of `type`.
macro_rules! tasks {
    ($($variant:ident => $module:ident),+ $(,)?) => {
        /// Task of a job, tagged by `type`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(tag = "type", rename_all = "snake_case")]
        #[schema(as = Task)]
        pub enum Config {
            $($variant($module::Config)),+
        }

        /// Values of the field `type`.
        pub const TASK_TYPES: &[&str] = &[$(stringify!($module)),+];

        impl Deref for Config {
            type Target = dyn Task;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$variant(config) => config),+
                }
            }
        }

        impl DerefMut for Config {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self {
                    $(Self::$variant(config) => config),+
                }
            }
        }
    };
}

tasks! {
    SequenceClassification => sequence_classification,
    Regression => regression,
    TokenClassification => token_classification,
    Embedding => embedding,
    MaskedLanguageModel => masked_language_model,
    CausalLanguageModel => causal_language_model,
    Preference => preference,
}

impl Config {
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.set_pooling(pooling);
        self
    }

    pub fn with_base_head(mut self, base_head: ClassificationHeadSpec) -> Self {
        self.set_base_head(base_head);
        self
    }

    /// The task on rows of one of its schemas.
    pub fn with_row_schema(mut self, schema: RowSchema) -> Self {
        self.set_row_schema(schema);
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::SequenceClassification(sequence_classification::Config::default())
    }
}

impl RowSchema {
    /// Task of a job that names none.
    pub fn default_task(self) -> Config {
        let embedding_with_loss = |loss| Config::Embedding(embedding::Config { pooling: None, loss: Some(loss) });
        match self {
            Self::Label => Config::default(),
            Self::Labels => {
                let config = sequence_classification::Config { multi_label: true, ..Default::default() };
                Config::SequenceClassification(config)
            }
            Self::Value => Config::Regression(regression::Config::default()),
            Self::Tags | Self::Entities => Config::TokenClassification(token_classification::Config::default()),
            Self::Positive => embedding_with_loss(embedding::Loss::MultipleNegativesRanking),
            Self::Score => embedding_with_loss(embedding::Loss::Cosine),
            Self::Completion | Self::Messages => Config::CausalLanguageModel(causal_language_model::Config::default()),
            Self::Chosen => Config::Preference(preference::Config::default()),
            Self::Text => Config::MaskedLanguageModel(masked_language_model::Config::default()),
        }
    }
}

/// Prediction for one input.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Prediction {
    Classification(sequence_classification::Prediction),
    MultiLabel(sequence_classification::MultiLabelPrediction),
    Regression(regression::Prediction),
    TokenClassification(token_classification::Prediction),
    MaskedLanguageModel(masked_language_model::Prediction),
    Embedding(Embedding),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_deserializes_from_its_type_alone_and_reports_loss() {
        for name in TASK_TYPES {
            let config: Config = serde_json::from_value(serde_json::json!({"type": name})).unwrap();
            assert_eq!(config.type_name(), *name);
        }
        for schema in RowSchema::ALL {
            assert!(schema.default_task().row_schemas().contains(&schema));
            assert!(schema.default_task().metric_names().contains(&"loss"));
        }
    }
}
