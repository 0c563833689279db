//! The head's start on the rows of a job's own training examples.

use super::frozen::Desk;
use super::prepare::Prepared;
use super::warm_start::HeadStart;
use crate::error::Result;
use crate::task::start::{self, Features, Fit};
use crate::task::{Reader, Reading};
use espalier_tensor::{Kernels, Tensor};

/// Rows that a start is fitted on: of words there may be many, and more tell it little.
const ROWS: usize = 20_000;

/// What a head starts from.
#[derive(Clone)]
pub struct Found {
    pub fit: Fit,
    /// Weight and bias of the layer before the outputs, where they start afresh.
    pub dense: Option<[Tensor; 2]>,
}

/// The training examples whose rows it takes, evenly spread; none where there is no head.
pub fn examples(reader: Reader, prepared: &Prepared) -> Vec<usize> {
    let training = &prepared.training;
    let rows: usize = training.iter().map(|example| prepared.targets.rows(*example)).sum();
    match (reader.head(), reader.reading) {
        (None, _) => Vec::new(),
        (Some(_), Reading::Pooled(_)) => training.clone(),
        (Some(_), Reading::Words) => training.iter().copied().step_by(rows.div_ceil(ROWS).max(1)).collect(),
    }
}

/// Fitted to the rows of these examples, end to end; `first` are the run's first parameters.
pub fn find(
    desk: &Desk,
    examples: &[usize],
    rows: &[f32],
    first: &[Tensor],
    kernels: &dyn Kernels,
) -> Result<Option<Found>> {
    let (Some(head), width) = (desk.network.reader().head(), desk.width) else { return Ok(None) };
    let targets = desk.prepared.targets.pick(examples).by_row();
    let fit = |rows: &[f32]| start::fit(&Features::new(rows, width, &targets), kernels);
    Ok(Some(match head.dense {
        None => Found { fit: fit(rows)?, dense: None },
        // A layer that the adapter brings stays what it is.
        Some(layer) if desk.spec.head_start() == HeadStart::Extended => {
            let [weight, bias] = [layer.weight, layer.bias].map(|param| &first[param.index()]);
            Found { fit: fit(&start::dense::apply(rows, weight, bias, layer.activation, kernels)?)?, dense: None }
        }
        Some(layer) => {
            let found = start::dense::start(rows, width, layer.activation, kernels)?;
            Found { fit: fit(&found.rows)?, dense: Some([found.weight, found.bias]) }
        }
    }))
}
