//! Initialisation of a head on the input rows of a job's training examples.

use super::feature_cache::FeatureExtractor;
use super::tokenized_dataset::TokenizedDataset;
use super::warm_start::HeadReuse;
use crate::error::Result;
use crate::task::head_init::{self, Features, LinearProbe};
use crate::task::{OutputHead, RowSelection};
use espalier_tensor::{Backend, Tensor};

/// Most rows that a head of a token-level task is fitted to.
const MAX_PROBE_ROWS: usize = 20_000;

/// Initial parameters of a head.
#[derive(Clone)]
pub struct HeadInit {
    pub probe: LinearProbe,
    /// Weight and bias of a new dense layer.
    pub dense_layer: Option<[Tensor; 2]>,
}

/// Training examples that a head is fitted to, evenly spread; none without a trained head.
pub fn probe_examples(output_head: OutputHead, dataset: &TokenizedDataset) -> Vec<usize> {
    let training = &dataset.training;
    let rows: usize = training.iter().map(|example| dataset.objective.row_count(*example)).sum();
    match (output_head.trained_head(), output_head.row_selection) {
        (None, _) => Vec::new(),
        (Some(_), RowSelection::Pooled(_)) => training.clone(),
        (Some(_), RowSelection::TargetPositions) => {
            training.iter().copied().step_by(rows.div_ceil(MAX_PROBE_ROWS).max(1)).collect()
        }
    }
}

/// Fits a head to `rows`, the concatenated input rows of these examples.
pub fn fit_head(
    extractor: &FeatureExtractor,
    examples: &[usize],
    rows: &[f32],
    initial_parameters: &[Tensor],
    kernels: &dyn Backend,
) -> Result<Option<HeadInit>> {
    let width = extractor.hidden_size;
    let (Some(head), Some(targets)) =
        (extractor.network.output_head().trained_head(), extractor.dataset.objective.row_targets(examples))
    else {
        return Ok(None);
    };
    let fit_probe = |rows: &[f32]| head_init::fit_probe(&Features::new(rows, width, &targets), kernels);
    Ok(Some(match head.dense {
        None => HeadInit { probe: fit_probe(rows)?, dense_layer: None },
        // The dense layer of the source adapter is kept.
        Some(layer) if extractor.spec.head_reuse() == HeadReuse::Extended => {
            let [weight, bias] = [layer.weight, layer.bias].map(|param| &initial_parameters[param.index()]);
            HeadInit {
                probe: fit_probe(&head_init::dense_init::forward(rows, weight, bias, layer.activation, kernels)?)?,
                dense_layer: None,
            }
        }
        Some(layer) => {
            let dense_init = head_init::dense_init::init_near_linear(rows, width, layer.activation, kernels)?;
            HeadInit { probe: fit_probe(&dense_init.rows)?, dense_layer: Some([dense_init.weight, dense_init.bias]) }
        }
    }))
}
