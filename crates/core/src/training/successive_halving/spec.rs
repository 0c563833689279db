//! Specification of a successive halving job, with all defaults resolved, and of each of its candidates.

use super::auto::{Auto, AutoType, Budget, Candidate, CandidateHyperparameters};
use super::leaderboard;
use crate::adapter::TrainingDefaults;
use crate::error::{Error, FieldError, Location, Result};
use crate::model::BaseModel;
use crate::task;
use crate::training::compatibility::{self, Combination};
use crate::training::defaults::default_pooling;
use crate::training::hyperparameters::{Hyperparameters, ResolvedHyperparameters, default_epochs};
use crate::training::spec::{Request, Spec, Validation, invalid_spec};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

/// Specification of a successive halving job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RaceSpec)]
pub struct SuccessiveHalvingSpec {
    pub task: task::Config,
    pub method: ResolvedAuto,
    pub validation: Validation,
    /// Metric that chooses the best epoch, where it is not that of `early_stopping` or the task's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection_metric: Option<String>,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Tokens per micro-batch. The partition decides the order in which gradients are summed.
    pub micro_batch_tokens: usize,
    /// Backend, for example `candle-cpu`.
    pub kernels: String,
    /// Fingerprint of the base.
    pub base: String,
}

/// Candidates with all their settings, and the budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Race)]
pub struct ResolvedAuto {
    #[serde(rename = "type")]
    pub kind: AutoType,
    #[schema(value_type = Vec<super::auto::CandidateSchema>)]
    pub candidates: Vec<Candidate<ResolvedHyperparameters>>,
    pub budget: Budget,
}

/// Built-in candidates: one method of each family, and three variants of LoRA.
fn default_candidates() -> Vec<Candidate<CandidateHyperparameters>> {
    let methods = json!([
        {"type": "head"},
        {"type": "lora"},
        {"type": "lora", "rank": 16, "target_modules": "all-linear", "hyperparameters": {"learning_rate": 5e-4}},
        {"type": "ia3"},
        {"type": "bottleneck"},
        {"type": "bias"},
        {"type": "vera"},
        {"type": "prefix_tuning"},
        {"type": "layer_norm"},
        {"type": "lora", "layers": {"top": 2}},
    ]);
    serde_json::from_value(methods).expect("the methods above deserialize")
}

/// Number of candidates where the request names none.
pub const DEFAULT_CANDIDATE_COUNT: usize = 8;

impl Auto {
    /// Most virtual tokens of a candidate.
    pub fn num_virtual_tokens(&self) -> usize {
        let candidates = self.candidates.clone().unwrap_or_else(default_candidates);
        candidates.iter().map(|candidate| candidate.method.num_virtual_tokens()).max().unwrap_or(0)
    }
}

impl SuccessiveHalvingSpec {
    /// Checks every candidate as a job of its own, and resolves all defaults.
    ///
    /// # Errors
    /// `Invalid` with a pointer for every value that is out of range or unknown to this base.
    pub fn resolve(
        auto: &Auto,
        request: &Request,
        labels: &[String],
        examples: usize,
        base: &BaseModel,
        max_candidates: usize,
    ) -> Result<Self> {
        let mut errors = Vec::new();
        let candidates = match &auto.candidates {
            Some(candidates) => candidates.clone(),
            None => supported_candidates(base, request, examples),
        };
        if !(2..=max_candidates).contains(&candidates.len()) {
            let message =
                format!("successive halving needs 2 to {max_candidates} candidates, not {}", candidates.len());
            return Err(invalid_spec(vec![FieldError::at_pointer("/method/candidates", message)]));
        }
        if request.from_adapter.is_some() {
            let message = "candidates cannot start from an adapter: leave \"from_adapter\" out, or name one method";
            errors.push(FieldError::at_pointer("/from_adapter", message));
        }
        if request.samples.is_some() {
            let message = "candidates are not sampled: leave \"samples\" out, or name one method";
            errors.push(FieldError::at_pointer("/samples", message));
        }
        let shared_hyperparameters = shared_hyperparameters(&candidates, request, examples, base);
        let mut specs: Vec<Spec> = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            match Spec::resolve(&candidate.request(request, &shared_hyperparameters), labels, examples, base) {
                Ok(spec) => specs.push(spec),
                Err(Error::Invalid(problem)) => add_candidate_errors(&mut errors, problem.errors, index, candidate),
                Err(other) => return Err(other),
            }
        }
        if errors.is_empty() {
            check_candidates(&specs, examples, &mut errors);
        }
        let first_rung = match specs.first() {
            Some(spec) if errors.is_empty() => {
                resolve_first_rung(auto.budget, spec, examples, specs.len(), &mut errors)
            }
            _ => 0,
        };
        match errors.is_empty() {
            true => Ok(Self::from_candidate_specs(specs, Budget { first_rung })),
            false => Err(invalid_spec(errors)),
        }
    }

    /// From the candidates' specifications, which differ in the method and its hyperparameters alone.
    fn from_candidate_specs(mut specs: Vec<Spec>, budget: Budget) -> Self {
        let candidate =
            |spec: &Spec| Candidate { method: spec.method.clone(), hyperparameters: spec.hyperparameters.clone() };
        let candidates = specs.iter().map(candidate).collect();
        let Spec { task, validation, selection_metric, labels, micro_batch_tokens, kernels, base, .. } =
            specs.swap_remove(0);
        let method = ResolvedAuto { kind: AutoType::Auto, candidates, budget };
        Self { task, method, validation, selection_metric, labels, micro_batch_tokens, kernels, base }
    }

    /// Specification of a job with this candidate alone.
    pub fn candidate_spec(&self, candidate: usize) -> Spec {
        let Candidate { method, hyperparameters } = self.method.candidates[candidate].clone();
        Spec {
            task: self.task.clone(),
            method,
            from_adapter: None,
            hyperparameters,
            validation: self.validation.clone(),
            selection_metric: self.selection_metric.clone(),
            samples: None,
            labels: self.labels.clone(),
            micro_batch_tokens: self.micro_batch_tokens,
            kernels: self.kernels.clone(),
            base: self.base.clone(),
        }
    }

    /// Hyperparameters that all candidates share.
    pub fn shared_hyperparameters(&self) -> Hyperparameters {
        let first = &self.method.candidates[0].hyperparameters;
        let ResolvedHyperparameters { epochs, batch_size, max_length, seed, gradient_accumulation, max_steps, .. } =
            *first;
        Hyperparameters {
            epochs: Some(epochs),
            batch_size: Some(batch_size),
            max_length: Some(max_length),
            seed: Some(seed),
            gradient_accumulation: Some(gradient_accumulation),
            max_steps,
            early_stopping: first.early_stopping.clone(),
            published_epoch: Some(first.published_epoch),
            precision: Some(first.precision),
            ..Hyperparameters::default()
        }
    }
}

impl Candidate<CandidateHyperparameters> {
    /// Request for a job with this candidate alone.
    fn request(&self, request: &Request, shared_hyperparameters: &Hyperparameters) -> Request {
        let CandidateHyperparameters { learning_rate, weight_decay, warmup_ratio, schedule, max_grad_norm } =
            self.hyperparameters.clone();
        let hyperparameters = Hyperparameters {
            learning_rate: learning_rate.or(shared_hyperparameters.learning_rate),
            weight_decay: weight_decay.or(shared_hyperparameters.weight_decay),
            warmup_ratio: warmup_ratio.or(shared_hyperparameters.warmup_ratio),
            schedule: schedule.or(shared_hyperparameters.schedule),
            max_grad_norm: max_grad_norm.or(shared_hyperparameters.max_grad_norm),
            ..shared_hyperparameters.clone()
        };
        Request {
            method: Some(self.method.clone()),
            hyperparameters,
            from_adapter: None,
            samples: None,
            ..request.clone()
        }
    }
}

/// Built-in candidates that are supported for this task and base.
fn supported_candidates(
    base: &BaseModel,
    request: &Request,
    examples: usize,
) -> Vec<Candidate<CandidateHyperparameters>> {
    let task = request.task.clone().unwrap_or_default();
    let pooling = task.pooling().unwrap_or_else(|| default_pooling(base.info(), &task, examples));
    let sites = base.sites(pooling);
    let is_supported = |candidate: &Candidate<CandidateHyperparameters>| {
        let combination = Combination { method: &candidate.method, task: &task, base: base.info(), sites: &sites };
        !compatibility::is_unsupported_method(&combination) && candidate.method.resolve(base, pooling).is_ok()
    };
    default_candidates().into_iter().filter(is_supported).take(DEFAULT_CANDIDATE_COUNT).collect()
}

/// Hyperparameters with the defaults that depend on the method, resolved for all candidates: the epochs of a method with an adapter,
/// and the largest maximum length that all candidates support.
fn shared_hyperparameters(
    candidates: &[Candidate<CandidateHyperparameters>],
    request: &Request,
    examples: usize,
    base: &BaseModel,
) -> Hyperparameters {
    let mut hyperparameters = request.hyperparameters.clone();
    let task_defaults = request.task_defaults(&request.task.clone().unwrap_or_default());
    let batch_size = hyperparameters.batch_size.unwrap_or(task_defaults.batch_size);
    hyperparameters
        .epochs
        .get_or_insert_with(|| default_epochs(examples, batch_size, TrainingDefaults::MIN_STEPS, task_defaults));
    let virtual_tokens = |candidate: &Candidate<CandidateHyperparameters>| candidate.method.num_virtual_tokens();
    let max_tokens = base.info().max_tokens.saturating_sub(candidates.iter().map(virtual_tokens).max().unwrap_or(0));
    hyperparameters.max_length = Some(hyperparameters.max_length(task_defaults.max_length, max_tokens));
    hyperparameters
}

/// Adds the errors of a candidate with pointers into the request. Errors that all candidates share are added once.
fn add_candidate_errors(
    errors: &mut Vec<FieldError>,
    candidate_errors: Vec<FieldError>,
    index: usize,
    candidate: &Candidate<CandidateHyperparameters>,
) {
    let overridden = json!(candidate.hyperparameters);
    for mut error in candidate_errors {
        if let Location::Pointer(pointer) = &mut error.location {
            if let Some(setting) = pointer.strip_prefix("/method") {
                *pointer = format!("/method/candidates/{index}{setting}");
            } else if let Some(field) = pointer.strip_prefix("/hyperparameters/")
                && overridden.get(field).is_some()
            {
                *pointer = format!("/method/candidates/{index}/hyperparameters/{field}");
            }
        }
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
}

/// Checks that there are validation examples and that no two candidates are equal.
fn check_candidates(specs: &[Spec], examples: usize, errors: &mut Vec<FieldError>) {
    if let Validation::Fraction(fraction) = specs[0].validation
        && (examples as f64 * fraction).round() < 1.0
    {
        let message = "successive halving needs validation examples, and this fraction leaves none: make it larger, or give a \
                       dataset_id";
        errors.push(FieldError::at_pointer("/validation/fraction", message));
    }
    for (index, spec) in specs.iter().enumerate() {
        if let Some(duplicate) = specs[..index].iter().position(|other| other == spec) {
            let message =
                format!("this candidate is the same as candidate {duplicate}: change a setting, or leave it out");
            errors.push(FieldError::at_pointer(format!("/method/candidates/{index}"), message));
        }
    }
}

/// The requested first rung, where it is within a full run. By default the examples of the full run halved so often that the last
/// two candidates run to the end: with a single candidate in the last rung, the best one was dropped too early on banking77.
fn resolve_first_rung(
    budget: Option<Budget>,
    spec: &Spec,
    examples: usize,
    candidates: usize,
    errors: &mut Vec<FieldError>,
) -> u64 {
    let hyperparameters = &spec.hyperparameters;
    let training_examples = match spec.validation {
        Validation::Fraction(fraction) => examples - (examples as f64 * fraction).round() as usize,
        Validation::DatasetId(_) | Validation::Split(_) => examples,
    };
    let examples_per_step = hyperparameters.examples_per_step() as u64;
    let full_run_examples = (hyperparameters.total_steps(training_examples) * examples_per_step)
        .min(u64::from(hyperparameters.epochs) * training_examples as u64);
    let Some(budget) = budget else {
        let halvings = leaderboard::halving_count(candidates).saturating_sub(1).max(1);
        return (full_run_examples >> halvings).max(examples_per_step.min(full_run_examples));
    };
    let range = examples_per_step.min(full_run_examples)..=full_run_examples;
    if !range.contains(&budget.first_rung) {
        let message = format!(
            "first_rung must be between {}, the examples of one update, and {full_run_examples}, those of a full run",
            range.start()
        );
        errors.push(FieldError::at_pointer("/method/budget/first_rung", message));
    }
    budget.first_rung
}
