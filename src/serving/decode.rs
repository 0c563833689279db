//! Rows of numbers into predictions.

use super::resident::Resident;
use super::ticket::Rows;
use super::{Ask, Logits};
use espalier_core::artifact::Card;
use espalier_core::error::{Error, Result};
use espalier_core::model::Base;
use espalier_core::task::{
    self, Embedding, Input, Prediction, masked_language_model, regression, sequence_classification,
    token_classification,
};

/// `rows` are those of the inputs.
///
/// # Errors
/// `Internal` where a row is not finite: that is never an answer.
pub fn predictions(
    base: &Base,
    resident: &Resident,
    rows: Rows,
    inputs: &[Input],
    ask: Ask,
) -> Result<Vec<Prediction>> {
    rows.into_iter().zip(inputs).map(|(row, input)| prediction(base, resident, row, input, ask)).collect()
}

fn prediction(base: &Base, resident: &Resident, row: Vec<f32>, input: &Input, ask: Ask) -> Result<Prediction> {
    if !row.iter().all(|value| value.is_finite()) {
        return Err(Error::internal("the model answered with a number that is not finite"));
    }
    Ok(match &resident.0 {
        None => Prediction::Embedding(Embedding { embedding: row }),
        Some(adapted) => answered(base, &adapted.card, row, input, ask),
    })
}

fn answered(base: &Base, card: &Card, row: Vec<f32>, input: &Input, ask: Ask) -> Prediction {
    let (labels, temperature) = (&card.labels, card.temperature);
    let logits = |row: Vec<f32>| (ask.logits == Logits::Include).then_some(row);
    match &card.task {
        task::Config::SequenceClassification(config) if config.multi_label => {
            let mut prediction = sequence_classification::decode_set(labels, &row);
            prediction.logits = logits(row);
            Prediction::Labels(prediction)
        }
        task::Config::SequenceClassification(_) => {
            let mut prediction = sequence_classification::decode(labels, temperature, &row, ask.top_k);
            prediction.logits = logits(row);
            Prediction::Classification(prediction)
        }
        task::Config::Regression(_) => {
            Prediction::Value(regression::Prediction { value: row.first().copied().unwrap_or_default() })
        }
        task::Config::TokenClassification(_) => {
            let mut prediction = token_classification::decode(labels, temperature, &row, input);
            prediction.logits = logits(row).map(|row| row.chunks_exact(labels.len()).map(<[f32]>::to_vec).collect());
            Prediction::Entities(prediction)
        }
        task::Config::MaskedLanguageModel(_) => {
            let word = |id| base.tokenizer().word(id);
            let vocabulary = base.info().vocabulary_size;
            Prediction::Fills(masked_language_model::decode(&row, vocabulary, ask.top_k, word))
        }
        task::Config::CausalLanguageModel(_) | task::Config::Preference(_) => {
            unreachable!("it is refused when its inputs are read")
        }
        task::Config::Embedding(_) => Prediction::Embedding(Embedding { embedding: row }),
    }
}
