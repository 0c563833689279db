//! Everything that can change the bytes of a result, fixed when the job is submitted and stored with it.

use super::compatibility::{self, Combination};
use super::hyperparameters::{DefaultsContext, ResolvedHyperparameters};
use super::warm_start::{FromAdapter, HeadReuse, SourceAdapter};
use super::{Hyperparameters, Samples};
use crate::adapter::target_modules::TargetModules;
use crate::adapter::{TensorSet, lora};
use crate::error::{Error, FieldError, Problem, Result};
use crate::model::{BaseModel, BaseModelInfo, Pooling};
use crate::task::RowSelection;
use crate::{adapter, task};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job's request with every default written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Spec {
    pub task: task::Config,
    pub method: adapter::Config,
    /// What it starts from, where that is an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_adapter: Option<FromAdapter>,
    pub hyperparameters: ResolvedHyperparameters,
    pub validation: Validation,
    /// What is said after every epoch, for whoever watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Tokens per micro-batch: the cut decides the order in which gradients are summed.
    pub micro_batch_tokens: usize,
    /// The kernel set, for example `candle-cpu`.
    pub kernels: String,
    /// The base's fingerprint.
    pub base: String,
}

/// Where the validation examples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Validation {
    /// A stratified, seeded share of the dataset, 0 for none.
    Fraction(f64),
    /// Another dataset of the same shape.
    DatasetId(uuid::Uuid),
}

/// What a user asked for; every field may be left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    pub task: Option<task::Config>,
    pub method: Option<adapter::Config>,
    pub hyperparameters: Hyperparameters,
    pub validation: Option<Validation>,
    /// The adapter that the job is to start from.
    pub from_adapter: Option<SourceAdapter>,
    pub samples: Option<Samples>,
}

impl Spec {
    /// Checks the request against the base and writes every default out. `labels` are the dataset's, any order.
    ///
    /// # Errors
    /// `Invalid` with a pointer for every value that is out of range or unknown to this base.
    pub fn resolve(request: &Request, labels: &[String], examples: usize, base: &BaseModel) -> Result<Self> {
        let info = base.info();
        let mut errors = Vec::new();
        let source_adapter = request.from_adapter.as_ref();
        let request = &source_adapter.map_or_else(|| request.clone(), |origin| origin.with_defaults(request));
        let task = request.task.clone().unwrap_or_default();
        let default_pooling = source_adapter.map_or(info.default_pooling, |origin| origin.pooling(base));
        let pooling = task.pooling().unwrap_or(default_pooling);
        errors.extend(task.validate());
        let method = resolve_method(request, base, &task, pooling, &mut errors)?;
        let (learning_rate, min_steps) = method_defaults(&method);
        let max_tokens = info.max_tokens.saturating_sub(method.num_virtual_tokens());
        let metrics = task.metric_names();
        let context = DefaultsContext {
            examples,
            max_tokens,
            task_defaults: task.defaults(),
            learning_rate,
            min_steps,
            metric_names: metrics,
        };
        let hyperparameters = request.hyperparameters.resolve(context, &mut errors);
        let validation = request.validation.clone().unwrap_or(Validation::Fraction(0.1));
        if let Validation::Fraction(fraction) = validation
            && !(0.0..=0.5).contains(&fraction)
        {
            errors.push(FieldError::at_pointer("/validation/fraction", "fraction must be between 0 and 0.5"));
        }
        if let Some(samples) = &request.samples {
            errors.extend(samples.validate(base, &task, method.num_virtual_tokens())?);
        }
        if !errors.is_empty() {
            return Err(invalid_spec(errors));
        }
        let labels = task.head_labels(labels);
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
            samples: request.samples.clone(),
            micro_batch_tokens: base.backend().preferred_micro_batch_tokens(),
            kernels: info.backend.clone(),
            base: info.fingerprint.clone(),
        })
    }
}

impl Spec {
    /// The form in which the adapter is trained: one that was published stays in the form that it has.
    pub fn tensor_set(&self) -> TensorSet {
        if self.from_adapter.is_some() { TensorSet::Inference } else { TensorSet::Training }
    }

    /// What the head starts from.
    pub fn head_reuse(&self) -> HeadReuse {
        self.from_adapter.as_ref().map_or(HeadReuse::Fresh, |from| from.head)
    }

    /// Whether the adapter leaves the base's answers as they are before its first step.
    pub fn is_identity_at_init(&self) -> bool {
        self.from_adapter.is_none() && self.method.is_identity_at_init()
    }

    /// The metric that the best epoch is chosen by.
    pub fn selection_metric(&self) -> &str {
        let requested = self.hyperparameters.early_stopping.as_ref().and_then(|stopping| stopping.metric.as_deref());
        requested.unwrap_or(self.task.metric_names()[0])
    }
}

/// The method that is asked for, or else the adapter's that the job starts from, or else the default.
fn resolve_method(
    request: &Request,
    base: &BaseModel,
    task: &task::Config,
    pooling: Pooling,
    errors: &mut Vec<FieldError>,
) -> Result<adapter::Config> {
    let source_adapter = request.from_adapter.as_ref();
    let requested = match (&request.method, source_adapter) {
        (Some(method), _) => method.clone(),
        (None, Some(origin)) => origin.method.clone(),
        (None, None) => default_method(base.info(), task),
    };
    errors.extend(compatibility::check(&Combination {
        method: &requested,
        task,
        base: base.info(),
        sites: &base.sites(pooling),
    }));
    // As it was published: it need not be said as a job would say it.
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

/// A sentence encoder's pooled rows are made to be told apart: on banking77 a head alone is as good as LoRA and takes a third
/// of one epoch's time (`benches/README.md`). Other rows say little before they are adapted.
fn default_method(info: &BaseModelInfo, task: &task::Config) -> adapter::Config {
    let default_rows = RowSelection::Pooled(info.default_pooling);
    let reads_sentence_embedding =
        info.sentence_encoder && RowSelection::for_task(task, info.default_pooling) == default_rows;
    // A task without a head of its own has nothing else to train.
    match reads_sentence_embedding && task.head_outputs(&[]).is_some() {
        true => adapter::Config::Head(adapter::head::Config::default()),
        // What is to be said word by word needs every map (Dettmers et al. 2023).
        false if task.is_generative() => {
            let target_modules = TargetModules::Single("all-linear".to_string());
            adapter::Config::Lora(lora::Config { target_modules, ..lora::Config::default() })
        }
        false => adapter::Config::default(),
    }
}

/// Updates that a small dataset gets of any method that changes the base's answers.
pub const MIN_STEPS: u64 = 150;

/// A method's learning rate, and the least updates that a small dataset gets: measured on a quarter of banking77, see
/// `benches/README.md`.
fn method_defaults(method: &adapter::Config) -> (f64, u64) {
    match method {
        adapter::Config::Lora(_) | adapter::Config::PTuning(_) | adapter::Config::LayerNorm(_) => (1e-3, MIN_STEPS),
        adapter::Config::Bottleneck(_)
        | adapter::Config::PrefixTuning(_)
        | adapter::Config::Bias(_)
        | adapter::Config::Vera(_)
        | adapter::Config::PromptTuning(_)
        | adapter::Config::Ia3(_) => (3e-3, MIN_STEPS),
        // An update of the head alone costs next to nothing once the features are remembered.
        adapter::Config::Head(_) => (1e-3, 600),
    }
}

/// Everything that is wrong with a job's settings.
pub fn invalid_spec(errors: Vec<FieldError>) -> Error {
    let sentences: Vec<&str> = errors.iter().map(|fault| fault.message.as_str()).collect();
    let detail = format!("the job's settings are wrong: {}", sentences.join("; "));
    Error::Invalid(Problem::new("invalid_job", detail).with_errors(errors))
}
