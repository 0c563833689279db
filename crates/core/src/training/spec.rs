//! Specification of a training run: every setting that can change the resulting bytes, resolved at submission and stored with the
//! job.

use super::compatibility::{self, Combination};
use super::defaults::{default_method, default_pooling};
use super::hyperparameters::{DefaultsContext, Hyperparameters, ResolvedHyperparameters};
use super::samples::Samples;
use super::warm_start::{FromAdapter, HeadReuse, SourceAdapter};
use crate::adapter::{TensorSet, TrainingDefaults};
use crate::error::{Error, FieldError, Problem, Result};
use crate::model::{BaseModel, Pooling};
use crate::task::{Split, TaskDefaults, label_weights};
use crate::{adapter, task};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request of a job with all defaults resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Spec {
    pub task: task::Config,
    pub method: adapter::Config,
    /// Adapter that the job starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_adapter: Option<FromAdapter>,
    pub hyperparameters: ResolvedHyperparameters,
    pub validation: Validation,
    /// Metric that chooses the best epoch, where it is not that of `early_stopping` or the task's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection_metric: Option<String>,
    /// Prompts of texts that are generated after every epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Tokens per micro-batch. The partition decides the order in which gradients are summed.
    pub micro_batch_tokens: usize,
    /// Backend, for example `candle-cpu`.
    pub kernels: String,
    /// Fingerprint of the base.
    pub base: String,
}

/// Source of the validation examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Validation {
    /// Stratified share of the dataset, drawn by the seed; 0 for none.
    Fraction(f64),
    /// Another dataset with the same row schema.
    DatasetId(uuid::Uuid),
    /// Rows of the dataset's own file whose column `split` or `set` says so; the default where there are such rows (`validation`).
    Split(Split),
}

impl Validation {
    /// The error of a share that is out of range.
    fn check(&self) -> Option<FieldError> {
        let Self::Fraction(fraction) = self else { return None };
        let message = "fraction must be between 0 and 0.5";
        (!(0.0..=0.5).contains(fraction)).then(|| FieldError::at_pointer("/validation/fraction", message))
    }
}

/// Request of a user. Every field is optional.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    pub task: Option<task::Config>,
    pub method: Option<adapter::Config>,
    pub hyperparameters: Hyperparameters,
    pub validation: Option<Validation>,
    /// Adapter that the job starts from.
    pub from_adapter: Option<SourceAdapter>,
    pub samples: Option<Samples>,
    /// Whether examples are pairs of texts, on which the default method depends.
    pub has_text_pairs: bool,
    /// Default of `max_length` that covers most of the dataset's rows; without it, the default is that of the task.
    pub covering_length: Option<usize>,
    /// Rows of the dataset by label, in any order; empty if unknown.
    pub label_counts: Vec<u64>,
}

impl Request {
    /// Defaults of the task, with a `max_length` that suits the dataset.
    pub fn task_defaults(&self, task: &task::Config) -> TaskDefaults {
        let defaults = task.defaults();
        TaskDefaults { max_length: self.covering_length.unwrap_or(defaults.max_length), ..defaults }
    }

    /// The request with defaults from the adapter that it starts from.
    fn with_adapter_defaults(&self) -> Self {
        let mut request = self.clone();
        if let Some(source) = &self.from_adapter {
            request.task.get_or_insert_with(|| source.task.clone());
            request.hyperparameters.max_length.get_or_insert(u32::try_from(source.max_length).unwrap_or(u32::MAX));
        }
        request
    }
}

impl Spec {
    /// Checks the request against the base and resolves all defaults. `labels` are those of the dataset, in any order.
    ///
    /// # Errors
    /// `Invalid` with a pointer for every value that is out of range or unknown to this base.
    pub fn resolve(request: &Request, labels: &[String], examples: usize, base: &BaseModel) -> Result<Self> {
        let info = base.info();
        let mut errors = Vec::new();
        let source_adapter = request.from_adapter.as_ref();
        let request = &request.with_adapter_defaults();
        let task = request.task.clone().unwrap_or_default();
        let pooling = task.pooling().unwrap_or_else(|| {
            source_adapter.map_or_else(|| default_pooling(info, &task, examples), |origin| origin.pooling(base))
        });
        errors.extend(task.validate());
        errors.extend(task.validate_labels(labels));
        let method = resolve_method(request, base, &task, examples, pooling, &mut errors)?;
        let TrainingDefaults { learning_rate, min_steps } = method.training_defaults();
        let max_tokens = info.max_tokens.saturating_sub(method.num_virtual_tokens());
        let metrics = task.metric_names();
        let validation = request.validation.clone().unwrap_or(Validation::Fraction(0.1));
        let held_out_examples = match validation {
            Validation::Fraction(fraction) => Some((examples as f64 * fraction) as usize),
            Validation::DatasetId(_) | Validation::Split(_) => None,
        };
        let context = DefaultsContext {
            examples,
            max_tokens,
            task_defaults: request.task_defaults(&task),
            learning_rate,
            min_steps,
            metric_names: metrics,
            held_out_examples,
        };
        let hyperparameters = request.hyperparameters.resolve(context, &mut errors);
        errors.extend(hyperparameters.precision.check(base));
        errors.extend(validation.check());
        if let Some(samples) = &request.samples {
            errors.extend(samples.validate(base, &task, method.num_virtual_tokens())?);
        }
        if !errors.is_empty() {
            return Err(invalid_spec(errors));
        }
        let labels = task.head_labels(labels);
        let has_rare_label = label_weights::has_rare_label(request.label_counts.iter().copied());
        let selection_metric = task.rare_label_metric().filter(|_| has_rare_label).map(str::to_string);
        let task = task.with_pooling(pooling).with_base_head(info.classification_head());
        let (from_adapter, labels) = match source_adapter {
            Some(origin) => origin.head_reuse(&task, base, labels),
            None => (None, labels),
        };
        Ok(Self {
            task,
            labels,
            method,
            from_adapter,
            hyperparameters,
            validation,
            selection_metric,
            samples: request.samples.clone(),
            micro_batch_tokens: base.backend().preferred_micro_batch_tokens(),
            kernels: info.backend.clone(),
            base: info.fingerprint.clone(),
        })
    }

    /// Tensors that are trained: those of a published adapter stay as they are.
    pub fn tensor_set(&self) -> TensorSet {
        if self.from_adapter.is_some() { TensorSet::Inference } else { TensorSet::Training }
    }

    /// Reuse of the head of the adapter that the job starts from.
    pub fn head_reuse(&self) -> HeadReuse {
        self.from_adapter.as_ref().map_or(HeadReuse::Fresh, |from| from.head)
    }

    /// Whether the adapter does not change the base's outputs before the first step.
    pub fn is_identity_at_init(&self) -> bool {
        self.from_adapter.is_none() && self.method.is_identity_at_init()
    }

    /// Metric that selects the best epoch.
    pub fn selection_metric(&self) -> &str {
        let requested = self.hyperparameters.early_stopping.as_ref().and_then(|stopping| stopping.metric.as_deref());
        requested.or(self.selection_metric.as_deref()).unwrap_or(self.task.metric_names()[0])
    }
}

/// The requested method, else that of the adapter that the job starts from, else the default.
fn resolve_method(
    request: &Request,
    base: &BaseModel,
    task: &task::Config,
    examples: usize,
    pooling: Pooling,
    errors: &mut Vec<FieldError>,
) -> Result<adapter::Config> {
    let source_adapter = request.from_adapter.as_ref();
    let requested = match (&request.method, source_adapter) {
        (Some(method), _) => method.clone(),
        (None, Some(origin)) => origin.method.clone(),
        (None, None) => default_method(base.info(), task, examples, request.has_text_pairs),
    };
    errors.extend(compatibility::check(&Combination {
        method: &requested,
        task,
        base: base.info(),
        sites: &base.sites(pooling),
    }));
    // A published method may have settings that a request could not have.
    let is_published = request.method.is_none() && source_adapter.is_some_and(|origin| origin.pooling(base) == pooling);
    if is_published || !errors.is_empty() {
        return Ok(requested);
    }
    match (requested.resolve(base, pooling), source_adapter) {
        (Ok(method), Some(origin)) => origin.merge_method(&method, base, pooling, errors),
        (Ok(method), None) => Ok(method),
        (Err(Error::Invalid(problem)), _) => {
            errors.extend(problem.errors);
            Ok(requested)
        }
        (Err(other), _) => Err(other),
    }
}

/// Error for invalid settings of a job.
pub fn invalid_spec(errors: Vec<FieldError>) -> Error {
    let sentences: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    let detail = format!("the job's settings are wrong: {}", sentences.join("; "));
    Error::Invalid(Problem::new("invalid_job", detail).with_errors(errors))
}
