//! The head's start on the rows of a job's own training examples.

use super::feature_cache::FeatureExtractor;
use super::tokenized_dataset::TokenizedDataset;
use super::warm_start::HeadReuse;
use crate::error::Result;
use crate::task::head_init::{self, Features, LinearProbe};
use crate::task::{OutputHead, RowSelection};
use espalier_tensor::{Backend, Tensor};

/// Rows that a start is fitted on: of words there may be many, and more tell it little.
const MAX_PROBE_ROWS: usize = 20_000;

/// What a head starts from.
#[derive(Clone)]
pub struct HeadInit {
    pub probe: LinearProbe,
    /// Weight and bias of the layer before the outputs, where they start afresh.
    pub dense_layer: Option<[Tensor; 2]>,
}

/// The training examples whose rows it takes, evenly spread; none where there is no head.
pub fn probe_examples(output_head: OutputHead, dataset: &TokenizedDataset) -> Vec<usize> {
    let training = &dataset.training;
    let rows: usize = training.iter().map(|example| dataset.targets.row_count(*example)).sum();
    match (output_head.trained_head(), output_head.row_selection) {
        (None, _) => Vec::new(),
        (Some(_), RowSelection::Pooled(_)) => training.clone(),
        (Some(_), RowSelection::TargetPositions) => {
            training.iter().copied().step_by(rows.div_ceil(MAX_PROBE_ROWS).max(1)).collect()
        }
    }
}

/// Fitted to the rows of these examples, end to end; `first` are the run's first parameters.
pub fn fit_head(
    extractor: &FeatureExtractor,
    examples: &[usize],
    rows: &[f32],
    initial_parameters: &[Tensor],
    kernels: &dyn Backend,
) -> Result<Option<HeadInit>> {
    let (Some(head), width) = (extractor.network.output_head().trained_head(), extractor.hidden_size) else {
        return Ok(None);
    };
    let targets = extractor.dataset.targets.select(examples).per_row();
    let fit_probe = |rows: &[f32]| head_init::fit_probe(&Features::new(rows, width, &targets), kernels);
    Ok(Some(match head.dense {
        None => HeadInit { probe: fit_probe(rows)?, dense_layer: None },
        // A layer that the adapter brings stays what it is.
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
