//! Rows of numbers into predictions.

use super::resident::Resident;
use super::ticket::Rows;
use super::{Ask, Logits};
use crate::artifact::Card;
use crate::error::{Error, Result};
use crate::task::{Embedding, Prediction, Shape, regression, sequence_classification};

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
        Some(adapted) => answered(&adapted.card, row, ask),
    })
}

fn answered(card: &Card, row: Vec<f32>, ask: Ask) -> Prediction {
    let logits = |row: Vec<f32>| (ask.logits == Logits::Include).then_some(row);
    match card.task.shape() {
        Shape::Label => {
            let mut prediction = sequence_classification::decode(&card.labels, card.temperature, &row, ask.top_k);
            prediction.logits = logits(row);
            Prediction::Classification(prediction)
        }
        Shape::Labels => {
            let mut prediction = sequence_classification::decode_set(&card.labels, &row);
            prediction.logits = logits(row);
            Prediction::Labels(prediction)
        }
        Shape::Value => Prediction::Value(regression::Prediction { value: row.first().copied().unwrap_or_default() }),
    }
}
