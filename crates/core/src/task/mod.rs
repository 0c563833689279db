//! What is asked of an adapted base: one file per task.
//!
//! A task sees hidden states or pooled rows, never the architecture, and no method. It knows nothing of files or jobs.

pub mod calibration;
pub mod causal_language_model;
mod conversation_target;
pub mod embedding;
pub mod head;
pub mod head_init;
mod input;
pub mod lm_loss;
pub mod masked_language_model;
pub mod metrics;
mod output_head;
pub mod preference;
pub mod regression;
pub mod row_schema;
pub mod sequence_classification;
pub mod tag_scheme;
pub mod targets;
pub mod token_classification;
pub mod word_spans;

pub use conversation_target::Conversation;
pub use embedding::Embedding;
pub use input::Input;
pub use output_head::{HeadKind, OutputHead, RowSelection};
pub use row_schema::RowSchema;

use crate::error::FieldError;
use crate::model::{CharSpan, ClassificationHeadSpec, Pooling};
use espalier_tensor::backend::Activation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// The task of a job, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Task)]
pub enum Config {
    SequenceClassification(sequence_classification::Config),
    Regression(regression::Config),
    TokenClassification(token_classification::Config),
    Embedding(embedding::Config),
    MaskedLanguageModel(masked_language_model::Config),
    CausalLanguageModel(causal_language_model::Config),
    Preference(preference::Config),
}

/// The words that `type` may be.
pub const TASK_TYPES: [&str; 7] = [
    "sequence_classification",
    "regression",
    "token_classification",
    "embedding",
    "masked_language_model",
    "causal_language_model",
    "preference",
];

impl Config {
    /// The word in `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::SequenceClassification(_) => "sequence_classification",
            Self::Regression(_) => "regression",
            Self::TokenClassification(_) => "token_classification",
            Self::Embedding(_) => "embedding",
            Self::MaskedLanguageModel(_) => "masked_language_model",
            Self::CausalLanguageModel(_) => "causal_language_model",
            Self::Preference(_) => "preference",
        }
    }

    /// What the base's rows are read by, where the task leaves it to its default: the tokens of a tagger leave the last
    /// layer as those that a mean is taken of.
    pub fn pooling(&self) -> Option<Pooling> {
        match self {
            Self::SequenceClassification(config) => config.pooling,
            Self::Regression(config) => config.pooling,
            Self::Embedding(config) => config.pooling,
            Self::TokenClassification(_)
            | Self::MaskedLanguageModel(_)
            | Self::CausalLanguageModel(_)
            | Self::Preference(_) => Some(Pooling::Mean),
        }
    }

    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        match &mut self {
            Self::SequenceClassification(config) => config.pooling = Some(pooling),
            Self::Regression(config) => config.pooling = Some(pooling),
            Self::Embedding(config) => config.pooling = Some(pooling),
            _ => {}
        }
        self
    }

    /// The activation of the head's dense layer, where it has one.
    pub fn head_activation(&self) -> Option<Activation> {
        let head_config = match self {
            Self::SequenceClassification(config) => &config.head,
            Self::Regression(config) => &config.head,
            _ => return None,
        };
        head_config.as_ref().and_then(head::Config::activation)
    }

    /// With the head that this base's checkpoints have, where the task says none and pools as they do.
    pub fn with_base_head(mut self, base_head: ClassificationHeadSpec) -> Self {
        let has_cls_pooling = self.pooling() == Some(Pooling::Cls);
        let head_config = match &mut self {
            Self::SequenceClassification(config) => &mut config.head,
            Self::Regression(config) => &mut config.head,
            _ => return self,
        };
        if let (None, true, Some(activation)) = (&head_config, has_cls_pooling, base_head.dense_activation()) {
            *head_config = Some(head::Config::Dense(head::Dense { activation }));
        }
        self
    }

    /// Rows of the head for a job or an adapter with these labels; `None` where no head is trained.
    pub fn head_outputs(&self, labels: &[String]) -> Option<usize> {
        match self {
            Self::SequenceClassification(_) | Self::TokenClassification(_) => Some(labels.len()),
            Self::Regression(_) => Some(1),
            _ => None,
        }
    }

    /// The labels of a job whose rows have these, sorted.
    pub fn head_labels(&self, dataset_labels: &[String]) -> Vec<String> {
        match self {
            Self::TokenClassification(_) => tag_scheme::with_missing_inside_tags(dataset_labels),
            _ => dataset_labels.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
        }
    }

    /// Whether its adapters say what comes next.
    pub fn is_generative(&self) -> bool {
        matches!(self, Self::CausalLanguageModel(_) | Self::Preference(_))
    }

    /// What a job trains with where it does not say it.
    pub fn defaults(&self) -> TaskDefaults {
        match self {
            // Few epochs, even of a small dataset: what is said word by word is soon known by heart.
            Self::CausalLanguageModel(_) | Self::Preference(_) => {
                TaskDefaults { max_length: 512, batch_size: 8, max_epochs: 3 }
            }
            _ => TaskDefaults { max_length: 128, batch_size: 32, max_epochs: 30 },
        }
    }

    /// What is wrong with its own settings.
    pub fn validate(&self) -> Vec<FieldError> {
        match self {
            Self::MaskedLanguageModel(config) => config.validate(),
            Self::Preference(config) => config.validate(),
            _ => Vec::new(),
        }
    }

    /// What early stopping and the choice of the best epoch may go by, the default first.
    pub fn metric_names(&self) -> &'static [&'static str] {
        match self {
            Self::SequenceClassification(config) if config.multi_label => {
                &["micro_f1", "loss", "macro_f1", "exact_match"]
            }
            Self::SequenceClassification(_) => &["accuracy", "loss", "macro_f1"],
            Self::Regression(_) => &["loss", "mean_absolute_error", "pearson", "spearman", "r2"],
            Self::TokenClassification(_) => &["f1", "loss", "precision", "recall", "macro_f1", "accuracy"],
            Self::Embedding(config) if config.loss == Some(embedding::Loss::Cosine) => &["spearman", "loss", "pearson"],
            Self::Preference(_) => &["loss", "accuracy", "margin"],
            Self::MaskedLanguageModel(_) | Self::CausalLanguageModel(_) => &["loss", "accuracy", "perplexity"],
            Self::Embedding(_) => &["mrr_at_10", "loss", "recall_at_1", "recall_at_5", "recall_at_10"],
        }
    }
}

/// A task's defaults.
#[derive(Debug, Clone, Copy)]
pub struct TaskDefaults {
    /// Tokens of a sequence.
    pub max_length: usize,
    /// Examples of a step.
    pub batch_size: u32,
    /// Epochs that a small dataset gets at most.
    pub max_epochs: u32,
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
    MultiLabel(Vec<String>),
    Value(f64),
    /// A tag for each word of the text.
    Tags {
        words: Vec<CharSpan>,
        tags: Vec<String>,
    },
    /// A text that belongs to this one, and perhaps one that does not.
    Positive {
        positive: String,
        negative: Option<String>,
    },
    /// How near the text and its pair are.
    Score(f64),
    /// What follows the text, which is its prompt.
    Completion(String),
    /// Turns; there is no text beside them.
    Conversation(Conversation),
    /// Two answers to the text, of which the first is the better one.
    Preference {
        chosen: String,
        rejected: String,
    },
    /// Two conversations that differ in the assistant's last turns, of which the first is the better one; there is no text beside
    /// them, and turns that both have are not learned.
    ConversationPreference {
        chosen: Conversation,
        rejected: Conversation,
    },
    /// Nothing but the text itself.
    Text,
}

impl Target {
    /// The labels that it names, perhaps more than once.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Label(label) => std::slice::from_ref(label),
            Self::MultiLabel(labels) => labels,
            Self::Tags { tags, .. } => tags,
            _ => &[],
        }
    }
}

/// One answer of a task.
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
            assert_eq!(config.type_name(), name);
        }
        for schema in RowSchema::ALL {
            assert!(schema.default_task().row_schemas().contains(&schema));
            assert!(schema.default_task().metric_names().contains(&"loss"));
        }
    }
}
