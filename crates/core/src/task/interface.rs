//! Trait [`Task`]: everything that differs between tasks.

use super::decision_threshold::{LabelThreshold, Threshold, Thresholds};
use super::objective::{Objective, ObjectiveContext};
use super::row_targets::RowTargets;
use super::{Example, HeadSpec, HeadType, Input, Prediction, RowSchema};
use crate::error::{Error, FieldError, Result};
use crate::model::{BaseModel, BaseModelInfo, ClassificationHeadSpec, Pooling, TextLimits, Tokenizer, Tokens};
use espalier_tensor::backend::Activation;
use std::collections::BTreeSet;

/// Everything that differs between tasks. Methods without a default body must be decided for every new task.
pub trait Task {
    /// Value of the field `type`.
    fn type_name(&self) -> &'static str;

    fn defaults(&self) -> TaskDefaults;

    /// Metrics that early stopping and the choice of the best epoch may use, the default first.
    fn metric_names(&self) -> &'static [&'static str];

    /// Row schemas that the task can be trained on.
    fn row_schemas(&self) -> &'static [RowSchema];

    /// Rows that the head reads and what it computes from them, for an adapter with these labels.
    fn head(&self, labels: &[String]) -> HeadSpec;

    /// Tokens of one input of a request, truncated to `limits.max_length`.
    ///
    /// # Errors
    /// `Invalid` (`text_too_long`), as for [`Tokenizer::encode_within`].
    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens>;

    /// Sequences of a training example, each of at most `max_length` tokens: one, or one per text that is compared.
    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>>;

    /// What training does with an example that [`Self::check_trainable`] refuses or that cannot be tokenized.
    fn untrainable_rows(&self) -> UntrainableRows;

    /// Training objective on the examples of a job.
    ///
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example whose target does not belong to the task or to the job's labels.
    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>>;

    /// Prediction from the output row of one input.
    fn postprocess(&self, context: &PostprocessContext, outputs: Vec<f32>, input: &Input) -> Result<Prediction>;

    /// Errors in the task's own settings.
    fn validate(&self) -> Vec<FieldError> {
        Vec::new()
    }

    /// Completes settings that follow from the schema of the dataset's rows.
    fn set_row_schema(&mut self, _schema: RowSchema) {}

    /// Whether an input may be a pair of texts.
    fn accepts_text_pairs(&self) -> bool {
        false
    }

    /// Pooling of a sequence to one row; `None` where the base's default applies. Tasks that read token positions use the rows
    /// of the last layer, as mean pooling does.
    fn pooling(&self) -> Option<Pooling> {
        Some(Pooling::Mean)
    }

    /// Sets the pooling of a task that has the setting.
    fn set_pooling(&mut self, _pooling: Pooling) {}

    /// Sets the head of this base's own classification checkpoints, where the task has a head of its own, names no layers, and
    /// pools like them.
    fn set_base_head(&mut self, _base_head: ClassificationHeadSpec) {}

    /// Labels in the order of the head's rows, from those of the dataset in any order.
    fn head_labels(&self, dataset_labels: &[String]) -> Vec<String> {
        dataset_labels.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Why an input with these tokens has no answer, if it has none.
    fn input_problem(&self, _base: &BaseModelInfo, _tokens: &Tokens) -> Option<InputProblem> {
        None
    }

    /// Errors in the task's own settings that name labels, given those of the dataset.
    fn validate_labels(&self, _labels: &[String]) -> Vec<FieldError> {
        Vec::new()
    }

    /// Metric that chooses the best epoch where some labels are rare.
    fn rare_label_metric(&self) -> Option<&'static str> {
        None
    }

    /// Thresholds of labels that suit the validation examples, whose outputs are given.
    fn suggest_thresholds(
        &self,
        _training: &RowTargets,
        _validation: &RowTargets,
        _outputs: &[f32],
        _temperature: f32,
    ) -> Vec<LabelThreshold> {
        Vec::new()
    }

    /// Threshold of each label for a request; `None` for a label without one.
    ///
    /// # Errors
    /// `Invalid` (`no_threshold`) for a task that does not choose labels, or an adapter without a suggestion; `unknown_label`.
    fn resolve_threshold(
        &self,
        _labels: &[String],
        _suggested: Option<&Thresholds>,
        _requested: &Threshold,
    ) -> Result<Vec<Option<f32>>> {
        let detail = format!("an adapter for {} has no threshold: leave \"threshold\" out", self.type_name());
        Err(Error::invalid("no_threshold", detail))
    }

    /// Checks that an example with these sequences has anything to learn.
    ///
    /// # Errors
    /// `Invalid` (`nothing_to_learn`) with advice.
    fn check_trainable(&self, _sequences: &[Tokens]) -> Result<()> {
        Ok(())
    }

    /// Whether raw texts are packed into examples of about `max_length` tokens.
    fn packs_raw_text(&self) -> bool {
        false
    }

    /// Number of outputs of the trained head; `None` where no head is trained.
    fn head_outputs(&self, labels: &[String]) -> Option<usize> {
        match self.head(labels).kind {
            HeadType::Trained { outputs, .. } => Some(outputs),
            HeadType::MaskedLm | HeadType::CausalLm | HeadType::Identity => None,
        }
    }

    /// Activation of the head's dense layer, where it has one.
    fn head_activation(&self) -> Option<Activation> {
        match self.head(&[]).kind {
            HeadType::Trained { activation, .. } => activation,
            HeadType::MaskedLm | HeadType::CausalLm | HeadType::Identity => None,
        }
    }

    /// Whether its adapters generate text (`POST /generate`) rather than predict (`POST /predict`).
    fn is_generative(&self) -> bool {
        self.head(&[]).kind == HeadType::CausalLm
    }
}

/// Defaults of a task's training settings.
#[derive(Debug, Clone, Copy)]
pub struct TaskDefaults {
    /// Tokens per sequence.
    pub max_length: usize,
    /// Examples per step.
    pub batch_size: u32,
    /// Largest default number of epochs, for a small dataset.
    pub max_epochs: u32,
    /// Fewest examples with which a head alone on a sentence encoder's embeddings is as accurate as LoRA; `None` if LoRA is better for any number.
    pub min_head_examples: Option<usize>,
}

impl TaskDefaults {
    /// For tasks that learn labels of whole texts.
    pub const TEXT: Self = Self { max_length: 128, batch_size: 32, max_epochs: 100, min_head_examples: Some(200) };

    /// For tasks that learn to generate: a model memorizes completions in a few epochs, even those of a small dataset.
    pub const GENERATION: Self = Self { max_length: 512, batch_size: 8, max_epochs: 3, min_head_examples: None };
}

/// Treatment of examples without anything to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UntrainableRows {
    /// The job fails.
    Refuse,
    /// The example is left out: the dataset's report has warned about it.
    Skip,
}

/// Reason why an input of a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputProblem {
    pub code: &'static str,
    pub message: String,
}

/// What a prediction depends on besides the outputs and the input.
pub struct PostprocessContext<'a> {
    pub base: &'a BaseModel,
    /// Labels of the adapter, in the order of the head's rows.
    pub labels: &'a [String],
    /// Divides the logits before the softmax.
    pub temperature: f32,
    /// Most probable labels or tokens to list.
    pub top_k: usize,
    /// Whether the prediction contains the logits.
    pub include_logits: bool,
    /// Threshold of each label that has one; empty without any.
    pub thresholds: &'a [Option<f32>],
}
