//! Embedding: a row of length 1 for each text, near those of texts that belong to it.
//!
//! Learned from pairs with a score, or from texts with one that belongs to them and, if there is one, one that does not.

use crate::model::Pooling;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmbeddingTask)]
pub struct Config {
    /// How a sequence becomes one row; the base's own default where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// What is learned from; the rows' fields decide where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Of `{text, text_pair, score}`: the squared difference of the cosine and the score (Reimers & Gurevych 2019).
    /// Scores that are not all between -1 and 1 are brought to 0 to 1, the training data's least to its greatest.
    Cosine,
    /// Of `{text, positive, negative?}`: each text has to find its positive among all positives and negatives of the
    /// batch (Henderson et al. 2017), by 20 times the cosine.
    MultipleNegativesRanking,
}

/// A row of numbers.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Embedding {
    pub embedding: Vec<f32>,
}

/// To length 1; a row of zeros stays what it is.
pub fn l2_normalize(row: &mut [f32]) {
    let norm = l2_norm(row).max(1e-12);
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
}

pub fn l2_norm(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}
