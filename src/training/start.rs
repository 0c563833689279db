//! The head's start on the rows of a run's own training examples.

use super::prepare::Prepared;
use super::run::Run;
use super::warm_start::{HeadStart, Source};
use crate::compute::{Kernels, Tensor};
use crate::error::Result;
use crate::task::{Reader, Reading, start};

/// Rows that a start is fitted on: of words there may be many, and more tell it little.
const ROWS: usize = 20_000;

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

/// Fits the head to the rows of these examples, end to end; what `source` knows of it stays.
pub fn head(
    run: &mut Run,
    examples: &[usize],
    rows: &[f32],
    source: Option<&Source>,
    kernels: &dyn Kernels,
) -> Result<()> {
    let (Some(head), width) = (run.network.reader().head(), run.width) else { return Ok(()) };
    let targets = run.prepared.targets.pick(examples).by_row();
    let count = targets.outputs();
    let extends = run.spec.head_start() == HeadStart::Extended;
    let through = match head.dense {
        None => None,
        // A layer that the adapter brings stays what it is.
        Some(layer) if extends => {
            let [weight, bias] = [layer.weight, layer.bias].map(|param| &run.state.parameters[param.index()]);
            Some(start::dense::apply(rows, weight, bias, layer.activation, kernels)?)
        }
        Some(layer) => {
            let found = start::dense::start(rows, width, layer.activation, kernels)?;
            run.state.parameters[layer.weight.index()] = found.weight;
            run.state.parameters[layer.bias.index()] = found.bias;
            Some(found.rows)
        }
    };
    let rows = through.as_deref().unwrap_or(rows);
    let fit = start::fit(&start::Features::new(rows, width, &targets), kernels)?;
    let fit = match (source, run.spec.head_start()) {
        (Some(source), HeadStart::Extended) => source.extend(fit, &targets, width),
        _ => fit,
    };
    run.state.parameters[head.weight.index()] = Tensor::new([count, width], fit.weight);
    run.state.parameters[head.bias.index()] = Tensor::new([count], fit.bias);
    Ok(())
}
