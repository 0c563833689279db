//! Hyperparameters of a job: requested and resolved, with the defaults of each task and method.

use crate::error::FieldError;
use crate::model::{BaseModel, MIN_SEQUENCE_LENGTH};
use crate::task::TaskDefaults;
use espalier_tensor::{Backend, LoraPrecision};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Hyperparameters of a request. Every field is optional; a job shows the resolved values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hyperparameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Factor of the method's default learning rate, instead of `learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate_multiplier: Option<f64>,
    /// Tokens; longer texts are truncated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_accumulation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// By default `best`, but `last` where fewer than 30 rows are held out of the dataset: they are too few to compare epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_epoch: Option<PublishedEpoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

/// Precision of the frozen base's products in forward passes. The adapter, the head, the optimizer and all gradients are in `f32`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    F32,
    /// Activations and weights in integers of at most 8 bits, in blocks of 32 values with one scale: faster and less exact. QLoRA (Dettmers
    /// et al. 2023) trains on a base in 4 bits, but multiplies in floating point.
    Int8,
}

impl Precision {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Backend of forward passes; `None` if the base's has no int8 kernels.
    pub fn backend(self, base: &BaseModel) -> Option<Arc<dyn Backend>> {
        match self {
            Self::F32 => Some(Arc::clone(base.backend())),
            Self::Int8 => base.backend().with_int8_activations(LoraPrecision::F32),
        }
    }

    /// The error of a precision without kernels.
    pub(super) fn check(self, base: &BaseModel) -> Option<FieldError> {
        let message = "this server's base is on a GPU, which has no int8 kernels: leave precision out";
        self.backend(base).is_none().then(|| FieldError::at_pointer("/hyperparameters/precision", message))
    }
}

/// Epoch whose weights become the adapter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublishedEpoch {
    /// The best one on the validation split.
    #[default]
    Best,
    Last,
}

/// Learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    Constant,
    Linear,
    Cosine,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Epochs without improvement before the run ends.
    pub patience: u32,
    /// Metric of the task on the validation split, by default its first. Single-label classification: `accuracy`, `loss`,
    /// `macro_f1`; multi-label classification: `micro_f1`, `loss`, `macro_f1`, `exact_match`; regression: `loss`,
    /// `mean_absolute_error`, `pearson`, `spearman`, `r2`; language models: `loss`, `accuracy`, `perplexity`; preferences: `loss`,
    /// `accuracy`, `margin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
}

/// Hyperparameters with all defaults resolved, as stored with the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedHyperparameters {
    pub epochs: u32,
    pub batch_size: u32,
    pub learning_rate: f64,
    pub max_length: u32,
    pub seed: u64,
    pub weight_decay: f64,
    pub warmup_ratio: f64,
    pub schedule: Schedule,
    pub max_grad_norm: f64,
    pub gradient_accumulation: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    #[serde(default)]
    pub published_epoch: PublishedEpoch,
    /// Left out where it is `f32`, as in specifications of versions that had no other: their checkpoints stay valid.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
}

impl ResolvedHyperparameters {
    /// Examples per optimizer step.
    pub fn examples_per_step(&self) -> usize {
        self.batch_size as usize * self.gradient_accumulation as usize
    }

    /// Steps of a run over this many training examples.
    pub fn total_steps(&self, examples: usize) -> u64 {
        let steps = self.steps_per_epoch(examples) * u64::from(self.epochs);
        self.max_steps.map_or(steps, |most| most.min(steps))
    }

    /// Steps of an epoch over this many training examples.
    pub fn steps_per_epoch(&self, examples: usize) -> u64 {
        examples.div_ceil(self.examples_per_step()).max(1) as u64
    }
}

/// Values that the defaults depend on.
#[derive(Debug, Clone, Copy)]
pub struct DefaultsContext {
    /// Examples of the dataset.
    pub examples: usize,
    /// Longest sequence of the base without virtual tokens.
    pub max_tokens: usize,
    pub task_defaults: TaskDefaults,
    /// Default of the method.
    pub learning_rate: f64,
    /// Least number of steps on a small dataset.
    pub min_steps: u64,
    /// Metrics of the task.
    pub metric_names: &'static [&'static str],
    /// Examples that are held out for validation; `None` where the request names a dataset or a split for it.
    pub held_out_examples: Option<usize>,
}

/// Fewest held-out examples that choose an epoch: with 30, the standard error of an accuracy of 0.9 is 0.05.
const MIN_SELECTION_EXAMPLES: usize = 30;

impl DefaultsContext {
    fn published_epoch(&self, early_stopping: Option<&EarlyStopping>) -> PublishedEpoch {
        match self.held_out_examples {
            Some(examples) if examples < MIN_SELECTION_EXAMPLES && early_stopping.is_none() => PublishedEpoch::Last,
            _ => PublishedEpoch::Best,
        }
    }
}

/// Epochs that give a small dataset `min_steps` steps, within limits.
pub fn default_epochs(examples: usize, batch_size: u32, min_steps: u64, task_defaults: TaskDefaults) -> u32 {
    let steps_per_epoch = examples.div_ceil(batch_size.max(1) as usize).max(1) as u64;
    min_steps.div_ceil(steps_per_epoch).clamp(3, u64::from(task_defaults.max_epochs)) as u32
}

impl Hyperparameters {
    /// Length in tokens to which sequences are truncated; `default_length` is that of the task.
    pub fn max_length(&self, default_length: usize, max_tokens: usize) -> u32 {
        self.max_length.unwrap_or(default_length.min(max_tokens) as u32)
    }

    /// Resolves the defaults and adds an error for each value that is out of range.
    pub fn resolve(&self, context: DefaultsContext, errors: &mut Vec<FieldError>) -> ResolvedHyperparameters {
        let batch_size = self.batch_size.unwrap_or(context.task_defaults.batch_size);
        let resolved = ResolvedHyperparameters {
            epochs: self.epochs.unwrap_or_else(|| {
                default_epochs(context.examples, batch_size, context.min_steps, context.task_defaults)
            }),
            batch_size,
            learning_rate: self
                .learning_rate
                .unwrap_or(context.learning_rate * self.learning_rate_multiplier.unwrap_or(1.0)),
            max_length: self.max_length(context.task_defaults.max_length, context.max_tokens),
            seed: self.seed.unwrap_or(42),
            weight_decay: self.weight_decay.unwrap_or(0.01),
            warmup_ratio: self.warmup_ratio.unwrap_or(0.06),
            schedule: self.schedule.unwrap_or(Schedule::Linear),
            max_grad_norm: self.max_grad_norm.unwrap_or(1.0),
            gradient_accumulation: self.gradient_accumulation.unwrap_or(1),
            max_steps: self.max_steps,
            early_stopping: self.early_stopping.clone(),
            published_epoch: self
                .published_epoch
                .unwrap_or_else(|| context.published_epoch(self.early_stopping.as_ref())),
            precision: self.precision.unwrap_or_default(),
        };
        if self.learning_rate.is_some() && self.learning_rate_multiplier.is_some() {
            let message = "give either learning_rate or learning_rate_multiplier";
            errors.push(FieldError::at_pointer("/hyperparameters/learning_rate_multiplier", message));
        }
        resolved.check(context.max_tokens, context.metric_names, errors);
        resolved
    }
}

impl ResolvedHyperparameters {
    fn check(&self, max_tokens: usize, metric_names: &[&str], errors: &mut Vec<FieldError>) {
        let mut require = |is_valid: bool, field: &str, message: String| {
            if !is_valid {
                errors.push(FieldError::at_pointer(format!("/hyperparameters/{field}"), message));
            }
        };
        let range_message = |field: &str, max: u64| format!("{field} must be a whole number between 1 and {max}");
        require((1..=100_000).contains(&self.epochs), "epochs", range_message("epochs", 100_000));
        require((1..=4096).contains(&self.batch_size), "batch_size", range_message("batch_size", 4096));
        let accumulation = self.gradient_accumulation;
        require(
            (1..=256).contains(&accumulation),
            "gradient_accumulation",
            range_message("gradient_accumulation", 256),
        );
        let learning_rate = self.learning_rate;
        require(
            learning_rate > 0.0 && learning_rate <= 1.0,
            "learning_rate",
            "learning_rate must be above 0 and at most 1".to_string(),
        );
        let length = format!(
            "max_length must be between {MIN_SEQUENCE_LENGTH} and {max_tokens}, the longest that this base reads"
        );
        require((MIN_SEQUENCE_LENGTH as u32..=max_tokens as u32).contains(&self.max_length), "max_length", length);
        let weight_decay = self.weight_decay;
        require(
            (0.0..=1.0).contains(&weight_decay),
            "weight_decay",
            "weight_decay must be between 0 and 1".to_string(),
        );
        let warmup_ratio = self.warmup_ratio;
        require(
            (0.0..=1.0).contains(&warmup_ratio),
            "warmup_ratio",
            "warmup_ratio must be between 0 and 1".to_string(),
        );
        let max_grad_norm = self.max_grad_norm;
        require(
            max_grad_norm > 0.0 && max_grad_norm.is_finite(),
            "max_grad_norm",
            "max_grad_norm must be above 0".to_string(),
        );
        require(self.max_steps != Some(0), "max_steps", "max_steps must be at least 1".to_string());
        if let Some(stopping) = &self.early_stopping {
            let is_known = stopping.metric.as_deref().is_none_or(|metric| metric_names.contains(&metric));
            let message = format!("metric must be one of {}", metric_names.join(", "));
            require(is_known, "early_stopping/metric", message);
            let patience = "patience must be at least 1".to_string();
            require(stopping.patience >= 1, "early_stopping/patience", patience);
        }
    }
}
