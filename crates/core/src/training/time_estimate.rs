//! Estimate of the time that a job trains, from the speed of the frozen base's forward passes.

use super::network::Network;
use super::plan::Plan;
use super::spec::{Spec, Validation};
use crate::adapter::ParameterBuilder;
use crate::error::Result;
use crate::model::{BaseModel, BaseModelInfo, FirstTrainableLayer};
use std::sync::Arc;
use std::time::Duration;

/// Time of the backward pass relative to the forward pass. The weights are frozen, so it computes the gradients of the activations alone.
const BACKWARD_COST: f64 = 1.2;

/// Time to claim a job, read its dataset and publish its adapter, without the probe.
const FIXED_SECONDS: f64 = 0.5;

/// Examples of a dataset, and their tokens, cut to the job's length.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub examples: usize,
    pub tokens: u64,
}

/// Time of a job at `tokens_per_second` of forward passes of the base. Early stopping can end it sooner; the evaluation of a validation
/// dataset of its own is not counted.
///
/// # Errors
/// The errors of building the adapter, which a resolved job does not have.
pub fn estimate(plan: &Plan, base: &Arc<BaseModel>, workload: Workload, tokens_per_second: f64) -> Result<Duration> {
    let forward_tokens = match plan {
        Plan::Single(spec) => base_tokens(spec, base, workload)?,
        Plan::SuccessiveHalving(halving) => {
            let count = halving.method.candidates.len();
            let all: f64 = (0..count)
                .map(|candidate| base_tokens(&halving.candidate_spec(candidate), base, workload))
                .sum::<Result<f64>>()?;
            // A rung has half of the candidates of the one before it and ends at twice the examples.
            all / count as f64 * (1.0 + (count as f64).log2() / 2.0)
        }
    };
    Ok(Duration::from_secs_f64(FIXED_SECONDS + forward_tokens / tokens_per_second.max(1e-3)))
}

/// Number of tokens whose forward pass takes as long as the run.
fn base_tokens(spec: &Spec, base: &Arc<BaseModel>, workload: Workload) -> Result<f64> {
    let (network, _) = Network::build(base, spec, ParameterBuilder::from_seed(spec.hyperparameters.seed))?;
    let virtual_tokens = (workload.examples * spec.method.num_virtual_tokens()) as f64;
    let tokens = workload.tokens as f64 + virtual_tokens;
    let validation_share = match spec.validation {
        Validation::Fraction(fraction) => fraction,
        Validation::DatasetId(_) | Validation::Split(_) => 0.0,
    };
    let training_examples = ((workload.examples as f64 * (1.0 - validation_share)) as usize).max(1);
    let hyperparameters = &spec.hyperparameters;
    let steps = hyperparameters.total_steps(training_examples) as f64;
    let epochs = steps / hyperparameters.steps_per_epoch(training_examples) as f64;
    let trained_share = trained_layer_share(network.first_trainable_layer(), base.info());
    let forward = trained_share + lm_head_cost(spec, base.info());
    let epoch = tokens * forward * ((1.0 - validation_share) * (1.0 + BACKWARD_COST) + validation_share);
    // The layers below the lowest trained one are computed once.
    Ok(tokens * (1.0 - trained_share) + epochs * epoch)
}

/// Share of the layers that have trainable parameters below or in them.
fn trained_layer_share(first: FirstTrainableLayer, info: &BaseModelInfo) -> f64 {
    match first {
        FirstTrainableLayer::Embeddings => 1.0,
        FirstTrainableLayer::Layer(layer) => 1.0 - layer as f64 / info.layers.max(1) as f64,
        FirstTrainableLayer::Pooler | FirstTrainableLayer::Head => 0.0,
    }
}

/// Time of a language model's head relative to that of the layers, by their parameters; at most 1.
fn lm_head_cost(spec: &Spec, info: &BaseModelInfo) -> f64 {
    let head = (info.vocabulary_size * info.hidden_size) as f64;
    match spec.task.is_generative() {
        true => head / (info.parameters as f64 - head).max(head),
        false => 0.0,
    }
}
