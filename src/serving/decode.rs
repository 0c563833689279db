//! Rows of numbers into predictions.

use super::resident::Resident;
use super::ticket::Rows;
use super::{Ask, Logits};
use crate::artifact::Card;
use crate::error::{Error, Result};
use crate::task::{self, Embedding, Prediction, sequence_classification};

/// # Errors
/// `Internal` where a row is not finite: that is never an answer.
pub fn predictions(resident: &Resident, rows: Rows, ask: Ask) -> Result<Vec<Prediction>> {
    rows.into_iter().map(|row| prediction(resident, row, ask)).collect()
}

fn prediction(resident: &Resident, row: Vec<f32>, ask: Ask) -> Result<Prediction> {
    if !row.iter().all(|value| value.is_finite()) {
        return Err(Error::internal("the model answered with a number that is not finite"));
    }
    Ok(match &resident.0 {
        None => Prediction::Embedding(Embedding { embedding: row }),
        Some(adapted) => Prediction::Classification(classified(&adapted.card, row, ask)),
    })
}

fn classified(card: &Card, row: Vec<f32>, ask: Ask) -> sequence_classification::Prediction {
    let task::Config::SequenceClassification(_) = &card.task;
    let mut prediction = sequence_classification::decode(&card.labels, card.temperature, &row, ask.top_k);
    prediction.logits = match ask.logits {
        Logits::Include => Some(row),
        Logits::Omit => None,
    };
    prediction
}
