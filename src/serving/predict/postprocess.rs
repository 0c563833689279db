//! Converts output rows into predictions.

use super::queue::OutputRow;
use crate::serving::adapters::AdapterHandle;
use crate::serving::{LogitsOutput, PredictOptions};
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::{Embedding, Input, PostprocessContext, Prediction};

/// Converts the row of each input.
///
/// # Errors
/// `Internal` for a row that is not finite.
pub fn postprocess_rows(
    base: &BaseModel,
    handle: &AdapterHandle,
    rows: Vec<OutputRow>,
    inputs: &[Input],
    options: PredictOptions,
) -> Result<Vec<Prediction>> {
    rows.into_iter().zip(inputs).map(|(row, input)| postprocess_row(base, handle, row, input, options)).collect()
}

fn postprocess_row(
    base: &BaseModel,
    handle: &AdapterHandle,
    row: Vec<f32>,
    input: &Input,
    options: PredictOptions,
) -> Result<Prediction> {
    if !row.iter().all(|value| value.is_finite()) {
        return Err(Error::internal("the model answered with a number that is not finite"));
    }
    let Some(adapter) = handle.loaded() else { return Ok(Prediction::Embedding(Embedding { embedding: row })) };
    let context = PostprocessContext {
        base,
        labels: &adapter.manifest.labels,
        temperature: adapter.manifest.temperature,
        top_k: options.top_k,
        include_logits: options.logits == LogitsOutput::Include,
    };
    adapter.manifest.task.postprocess(&context, row, input)
}
