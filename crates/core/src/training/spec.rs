//! Everything that can change the bytes of a result, fixed when the job is submitted and stored with it.

use super::cells::{self, Asked};
use super::hyperparameters::{Circumstances, Resolved};
use super::warm_start::{FromAdapter, HeadStart, Origin};
use super::{Hyperparameters, Samples};
use crate::adapter::targets::TargetModules;
use crate::adapter::{Form, lora};
use crate::error::{Error, Fault, Problem, Result};
use crate::model::{Base, Info, Pooling};
use crate::task::Reading;
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
    pub hyperparameters: Resolved,
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
    pub from_adapter: Option<Origin>,
    pub samples: Option<Samples>,
}

impl Spec {
    /// Checks the request against the base and writes every default out. `labels` are the dataset's, any order.
    ///
    /// # Errors
    /// `Invalid` with a pointer for every value that is out of range or unknown to this base.
    pub fn resolve(request: &Request, labels: &[String], examples: usize, base: &Base) -> Result<Self> {
        let info = base.info();
        let mut faults = Vec::new();
        let origin = request.from_adapter.as_ref();
        let request = &origin.map_or_else(|| request.clone(), |origin| origin.fill(request));
        let task = request.task.clone().unwrap_or_default();
        let usual = origin.map_or(info.default_pooling, |origin| origin.pooling(base));
        let pooling = task.pooling().unwrap_or(usual);
        faults.extend(task.faults());
        let method = method(request, base, &task, pooling, &mut faults)?;
        let (learning_rate, least_steps) = defaults(&method);
        let max_tokens = info.max_tokens.saturating_sub(method.virtual_tokens());
        let metrics = task.metrics();
        let given = Circumstances { examples, max_tokens, usual: task.usual(), learning_rate, least_steps, metrics };
        let hyperparameters = request.hyperparameters.resolve(given, &mut faults);
        let validation = request.validation.clone().unwrap_or(Validation::Fraction(0.1));
        if let Validation::Fraction(fraction) = validation
            && !(0.0..=0.5).contains(&fraction)
        {
            faults.push(Fault::at_pointer("/validation/fraction", "fraction must be between 0 and 0.5"));
        }
        if let Some(samples) = &request.samples {
            faults.extend(samples.faults(base, &task, method.virtual_tokens())?);
        }
        if !faults.is_empty() {
            return Err(refusal(faults));
        }
        let labels = task.labels(labels);
        let task = task.with_pooling(pooling).with_head_of(info.head());
        let (from_adapter, labels) = match origin {
            Some(origin) => origin.head(&task, base, labels),
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
            micro_batch_tokens: base.kernels().micro_batch_tokens(),
            kernels: info.kernels.clone(),
            base: info.fingerprint.clone(),
        })
    }
}

impl Spec {
    /// The form in which the adapter is trained: one that was published stays in the form that it has.
    pub fn form(&self) -> Form {
        if self.from_adapter.is_some() { Form::Published } else { Form::Training }
    }

    /// What the head starts from.
    pub fn head_start(&self) -> HeadStart {
        self.from_adapter.as_ref().map_or(HeadStart::Fresh, |from| from.head)
    }

    /// Whether the adapter leaves the base's answers as they are before its first step.
    pub fn starts_neutral(&self) -> bool {
        self.from_adapter.is_none() && self.method.starts_neutral()
    }

    /// The metric that the best epoch is chosen by.
    pub fn metric(&self) -> &str {
        let asked = self.hyperparameters.early_stopping.as_ref().and_then(|stopping| stopping.metric.as_deref());
        asked.unwrap_or(self.task.metrics()[0])
    }
}

/// The method that is asked for, or else the adapter's that the job starts from, or else the default.
fn method(
    request: &Request,
    base: &Base,
    task: &task::Config,
    pooling: Pooling,
    faults: &mut Vec<Fault>,
) -> Result<adapter::Config> {
    let origin = request.from_adapter.as_ref();
    let wished = match (&request.method, origin) {
        (Some(method), _) => method.clone(),
        (None, Some(origin)) => origin.method.clone(),
        (None, None) => default_method(base.info(), task),
    };
    faults.extend(cells::faults(&Asked { method: &wished, task, base: base.info(), sites: &base.sites(pooling) }));
    // As it was published: it need not be said as a job would say it.
    let is_published = request.method.is_none() && origin.is_some_and(|origin| origin.pooling(base) == pooling);
    if is_published || !faults.is_empty() {
        return Ok(wished);
    }
    match (wished.resolve(base, pooling), origin) {
        (Ok(method), Some(origin)) => origin.method(&method, base, pooling, faults),
        (Ok(method), None) => Ok(method),
        (Err(Error::Invalid(problem)), _) => {
            faults.extend(problem.faults);
            Ok(wished)
        }
        (Err(other), _) => Err(other),
    }
}

/// A sentence encoder's pooled rows are made to be told apart: on banking77 a head alone is as good as LoRA and takes a third
/// of one epoch's time (`benches/README.md`). Other rows say little before they are adapted.
fn default_method(info: &Info, task: &task::Config) -> adapter::Config {
    let own = Reading::Pooled(info.default_pooling);
    let is_own = info.sentence_encoder && Reading::of(task, info.default_pooling) == own;
    // A task without a head of its own has nothing else to train.
    match is_own && task.outputs(&[]).is_some() {
        true => adapter::Config::Head(adapter::head::Config::default()),
        // What is to be said word by word needs every map (Dettmers et al. 2023).
        false if task.generates() => {
            let target_modules = TargetModules::Word("all-linear".to_string());
            adapter::Config::Lora(lora::Config { target_modules, ..lora::Config::default() })
        }
        false => adapter::Config::default(),
    }
}

/// Updates that a small dataset gets of any method that changes the base's answers.
pub const LEAST_STEPS: u64 = 150;

/// A method's learning rate, and the least updates that a small dataset gets: measured on a quarter of banking77, see
/// `benches/README.md`.
fn defaults(method: &adapter::Config) -> (f64, u64) {
    match method {
        adapter::Config::Lora(_) | adapter::Config::PTuning(_) | adapter::Config::LayerNorm(_) => (1e-3, LEAST_STEPS),
        adapter::Config::Bottleneck(_)
        | adapter::Config::PrefixTuning(_)
        | adapter::Config::Bias(_)
        | adapter::Config::Vera(_)
        | adapter::Config::PromptTuning(_)
        | adapter::Config::Ia3(_) => (3e-3, LEAST_STEPS),
        // An update of the head alone costs next to nothing once the features are remembered.
        adapter::Config::Head(_) => (1e-3, 600),
    }
}

/// Everything that is wrong with a job's settings.
pub fn refusal(faults: Vec<Fault>) -> Error {
    let sentences: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    let detail = format!("the job's settings are wrong: {}", sentences.join("; "));
    Error::Invalid(Problem::new("invalid_job", detail).with_faults(faults))
}
