//! A race with every default written out: what is stored with its job, and each candidate's own specification in it.

use super::method::{Auto, Budget, Candidate, Tuning, Word};
use super::rungs;
use crate::error::{Error, Fault, Place, Result};
use crate::model::Base;
use crate::task;
use crate::training::cells::{self, Asked};
use crate::training::hyperparameters::{Resolved, usual_epochs};
use crate::training::spec::{LEAST_STEPS, Request, refusal};
use crate::training::{Hyperparameters, Spec, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = RaceSpec)]
pub struct Race {
    pub task: task::Config,
    pub method: Entered,
    pub validation: Validation,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Tokens per micro-batch: the cut decides the order in which gradients are summed.
    pub micro_batch_tokens: usize,
    /// The kernel set, for example `candle-cpu`.
    pub kernels: String,
    /// The base's fingerprint.
    pub base: String,
}

/// Who is in the race, with all settings, and its budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Race)]
pub struct Entered {
    #[serde(rename = "type")]
    pub kind: Word,
    #[schema(value_type = Vec<super::method::CandidateSchema>)]
    pub candidates: Vec<Candidate<Resolved>>,
    pub budget: Budget,
}

/// Where the candidates are left out, the first eight of these that a base can do: one of each family, LoRA in two sizes.
fn usual() -> Vec<Candidate<Tuning>> {
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
    serde_json::from_value(methods).expect("every method above is written as a request writes it")
}

/// Candidates where none are named.
pub const USUAL: usize = 8;

impl Race {
    /// Checks every candidate as a job of its own, and writes every default out.
    ///
    /// # Errors
    /// `Invalid` with a pointer for every value that is out of range or unknown to this base.
    pub fn resolve(
        auto: &Auto,
        request: &Request,
        labels: &[String],
        examples: usize,
        base: &Base,
        most: usize,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let candidates = match &auto.candidates {
            Some(candidates) => candidates.clone(),
            None => able(base, request),
        };
        if !(2..=most).contains(&candidates.len()) {
            let message = format!("a race needs 2 to {most} candidates, not {}", candidates.len());
            return Err(refusal(vec![Fault::at_pointer("/method/candidates", message)]));
        }
        if request.from_adapter.is_some() {
            let message = "the candidates of a race start afresh: leave \"from_adapter\" out, or name one method";
            faults.push(Fault::at_pointer("/from_adapter", message));
        }
        if request.samples.is_some() {
            let message = "the candidates of a race are not sampled: leave \"samples\" out, or name one method";
            faults.push(Fault::at_pointer("/samples", message));
        }
        let shared = shared(&candidates, request, examples, base);
        let mut specs: Vec<Spec> = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            match Spec::resolve(&candidate.request(request, &shared), labels, examples, base) {
                Ok(spec) => specs.push(spec),
                Err(Error::Invalid(problem)) => add(&mut faults, problem.faults, index, candidate),
                Err(other) => return Err(other),
            }
        }
        if faults.is_empty() {
            check_all(&specs, examples, &mut faults);
        }
        let first_rung = match specs.first() {
            Some(spec) if faults.is_empty() => first_rung(auto.budget, spec, examples, specs.len(), &mut faults),
            _ => 0,
        };
        match faults.is_empty() {
            true => Ok(Self::of(specs, Budget { first_rung })),
            false => Err(refusal(faults)),
        }
    }

    /// All specifications are the same but for what a candidate has of its own.
    fn of(mut specs: Vec<Spec>, budget: Budget) -> Self {
        let candidate =
            |spec: &Spec| Candidate { method: spec.method.clone(), hyperparameters: spec.hyperparameters.clone() };
        let candidates = specs.iter().map(candidate).collect();
        let Spec { task, validation, labels, micro_batch_tokens, kernels, base, .. } = specs.swap_remove(0);
        let method = Entered { kind: Word::Auto, candidates, budget };
        Self { task, method, validation, labels, micro_batch_tokens, kernels, base }
    }

    /// The specification of a candidate: that of a job with it alone.
    pub fn spec(&self, candidate: usize) -> Spec {
        let Candidate { method, hyperparameters } = self.method.candidates[candidate].clone();
        Spec {
            task: self.task.clone(),
            method,
            from_adapter: None,
            hyperparameters,
            validation: self.validation.clone(),
            samples: None,
            labels: self.labels.clone(),
            micro_batch_tokens: self.micro_batch_tokens,
            kernels: self.kernels.clone(),
            base: self.base.clone(),
        }
    }

    /// What all candidates train by.
    pub fn shared(&self) -> Hyperparameters {
        let Resolved { epochs, batch_size, max_length, seed, gradient_accumulation, max_steps, .. } =
            self.method.candidates[0].hyperparameters;
        Hyperparameters {
            epochs: Some(epochs),
            batch_size: Some(batch_size),
            max_length: Some(max_length),
            seed: Some(seed),
            gradient_accumulation: Some(gradient_accumulation),
            max_steps,
            early_stopping: self.method.candidates[0].hyperparameters.early_stopping.clone(),
            ..Hyperparameters::default()
        }
    }
}

impl Candidate<Tuning> {
    /// A job with this candidate alone.
    fn request(&self, request: &Request, shared: &Hyperparameters) -> Request {
        let Tuning { learning_rate, weight_decay, warmup_ratio, schedule, max_grad_norm } =
            self.hyperparameters.clone();
        let hyperparameters = Hyperparameters {
            learning_rate: learning_rate.or(shared.learning_rate),
            weight_decay: weight_decay.or(shared.weight_decay),
            warmup_ratio: warmup_ratio.or(shared.warmup_ratio),
            schedule: schedule.or(shared.schedule),
            max_grad_norm: max_grad_norm.or(shared.max_grad_norm),
            ..shared.clone()
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

/// The usual candidates that this base can do for this task.
fn able(base: &Base, request: &Request) -> Vec<Candidate<Tuning>> {
    let task = request.task.clone().unwrap_or_default();
    let pooling = task.pooling().unwrap_or(base.info().default_pooling);
    let sites = base.sites(pooling);
    let is_able = |candidate: &Candidate<Tuning>| {
        let asked = Asked { method: &candidate.method, task: &task, base: base.info(), sites: &sites };
        !cells::is_methods_fault(&asked) && candidate.method.resolve(base, pooling).is_ok()
    };
    usual().into_iter().filter(is_able).take(USUAL).collect()
}

/// The hyperparameters with those defaults that depend on the method, so that they are the same for all: as many epochs as
/// a method with an adapter gets, and the longest text that every candidate can read.
fn shared(candidates: &[Candidate<Tuning>], request: &Request, examples: usize, base: &Base) -> Hyperparameters {
    let mut shared = request.hyperparameters.clone();
    let usual = request.task.clone().unwrap_or_default().usual();
    let batch_size = shared.batch_size.unwrap_or(usual.batch_size);
    shared.epochs.get_or_insert_with(|| usual_epochs(examples, batch_size, LEAST_STEPS, usual));
    let virtual_tokens = |candidate: &Candidate<Tuning>| candidate.method.virtual_tokens();
    let longest = base.info().max_tokens.saturating_sub(candidates.iter().map(virtual_tokens).max().unwrap_or(0));
    shared.max_length = Some(shared.max_length(usual.length, longest));
    shared
}

/// A candidate's faults where the request says them; what is wrong for all is said once.
fn add(faults: &mut Vec<Fault>, found: Vec<Fault>, index: usize, candidate: &Candidate<Tuning>) {
    let own = json!(candidate.hyperparameters);
    for mut fault in found {
        if let Place::Pointer(pointer) = &mut fault.place {
            if let Some(setting) = pointer.strip_prefix("/method") {
                *pointer = format!("/method/candidates/{index}{setting}");
            } else if let Some(field) = pointer.strip_prefix("/hyperparameters/")
                && own.get(field).is_some()
            {
                *pointer = format!("/method/candidates/{index}/hyperparameters/{field}");
            }
        }
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
}

/// What a race asks beyond what its candidates ask.
fn check_all(specs: &[Spec], examples: usize, faults: &mut Vec<Fault>) {
    if let Validation::Fraction(fraction) = specs[0].validation
        && (examples as f64 * fraction).round() < 1.0
    {
        let message = "a race is decided on validation examples, and this fraction leaves none: make it larger, or give a \
                       dataset_id";
        faults.push(Fault::at_pointer("/validation/fraction", message));
    }
    for (index, spec) in specs.iter().enumerate() {
        if let Some(same) = specs[..index].iter().position(|other| other == spec) {
            let message = format!("this candidate is the same as candidate {same}: change a setting, or leave it out");
            faults.push(Fault::at_pointer(format!("/method/candidates/{index}"), message));
        }
    }
}

/// What was asked for, where a run can do it, or the full run's examples halved once less than half the candidates are dropped:
/// the last two run to the end. Where the last one ran alone, a race on banking77 dropped the best too early.
fn first_rung(budget: Option<Budget>, spec: &Spec, examples: usize, candidates: usize, faults: &mut Vec<Fault>) -> u64 {
    let settings = &spec.hyperparameters;
    let training = match spec.validation {
        Validation::Fraction(fraction) => examples - (examples as f64 * fraction).round() as usize,
        Validation::DatasetId(_) => examples,
    };
    let update = settings.step_examples() as u64;
    let full = (settings.total_steps(training) * update).min(u64::from(settings.epochs) * training as u64);
    let Some(budget) = budget else {
        let halvings = rungs::halvings(candidates).saturating_sub(1).max(1);
        return (full >> halvings).max(update.min(full));
    };
    let range = update.min(full)..=full;
    if !range.contains(&budget.first_rung) {
        let message = format!(
            "first_rung must be between {}, the examples of one update, and {full}, those of a full run",
            range.start()
        );
        faults.push(Fault::at_pointer("/method/budget/first_rung", message));
    }
    budget.first_rung
}
