//! Converts output rows into predictions.

use super::queue::OutputRow;
use crate::serving::adapters::AdapterHandle;
use crate::serving::{LogitsOutput, PredictOptions};
use espalier_core::artifact::AdapterManifest;
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::task::{
    self, Embedding, Input, Prediction, masked_language_model, regression, sequence_classification,
    token_classification,
};

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
    Ok(match handle.loaded() {
        None => Prediction::Embedding(Embedding { embedding: row }),
        Some(adapter) => task_prediction(base, &adapter.manifest, row, input, options),
    })
}

fn task_prediction(
    base: &BaseModel,
    card: &AdapterManifest,
    row: Vec<f32>,
    input: &Input,
    options: PredictOptions,
) -> Prediction {
    let (labels, temperature) = (&card.labels, card.temperature);
    let requested_logits = |row: Vec<f32>| (options.logits == LogitsOutput::Include).then_some(row);
    match &card.task {
        task::Config::SequenceClassification(config) if config.multi_label => {
            let mut prediction = sequence_classification::postprocess_multi_label(labels, &row);
            prediction.logits = requested_logits(row);
            Prediction::MultiLabel(prediction)
        }
        task::Config::SequenceClassification(_) => {
            let mut prediction = sequence_classification::postprocess(labels, temperature, &row, options.top_k);
            prediction.logits = requested_logits(row);
            Prediction::Classification(prediction)
        }
        task::Config::Regression(_) => {
            Prediction::Regression(regression::Prediction { value: row.first().copied().unwrap_or_default() })
        }
        task::Config::TokenClassification(_) => {
            let mut prediction = token_classification::postprocess(labels, temperature, &row, input);
            prediction.logits =
                requested_logits(row).map(|row| row.chunks_exact(labels.len()).map(<[f32]>::to_vec).collect());
            Prediction::TokenClassification(prediction)
        }
        task::Config::MaskedLanguageModel(_) => {
            let token_text = |id| base.tokenizer().decode_token(id);
            let vocabulary_size = base.info().vocabulary_size;
            Prediction::MaskedLanguageModel(masked_language_model::postprocess(
                &row,
                vocabulary_size,
                options.top_k,
                token_text,
            ))
        }
        task::Config::CausalLanguageModel(_) | task::Config::Preference(_) => {
            unreachable!("it is refused when its inputs are read")
        }
        task::Config::Embedding(_) => Prediction::Embedding(Embedding { embedding: row }),
    }
}
