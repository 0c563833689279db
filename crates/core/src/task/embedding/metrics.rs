//! Metrics of embeddings: correlation of cosines with scores, or retrieval of the positives.

use crate::task::metrics::{TaskMetrics, pearson, spearman};
use serde::Serialize;
use serde_json::{Value, json};

/// Metrics of scored pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimilarityMetrics {
    pub examples: usize,
    /// Mean squared difference of cosines and scores.
    pub loss: f64,
    /// Correlations of cosines and scores; 0 where one side is constant.
    pub spearman: f64,
    pub pearson: f64,
}

/// Metrics of the retrieval of similar texts among the positives and negatives of all examples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetrievalMetrics {
    pub examples: usize,
    /// Mean loss, in batches of 32 in the order of the data.
    pub loss: f64,
    /// Mean reciprocal rank of the first hit, 0 beyond the tenth.
    pub mrr_at_10: f64,
    /// Share of texts whose first hit is among the first 1, 5 or 10 candidates.
    pub recall_at_1: f64,
    pub recall_at_5: f64,
    pub recall_at_10: f64,
}

impl SimilarityMetrics {
    pub fn new(cosines: &[f64], scores: &[f64], loss: f64) -> Self {
        Self { examples: scores.len(), loss, spearman: spearman(cosines, scores), pearson: pearson(cosines, scores) }
    }
}

impl RetrievalMetrics {
    /// From the ranks of the first hits, from 1 on.
    pub fn new(ranks: &[usize], loss: f64) -> Self {
        let count = ranks.len().max(1) as f64;
        let recall_at = |k: usize| ranks.iter().filter(|rank| **rank <= k).count() as f64 / count;
        let reciprocal_ranks = ranks.iter().filter(|rank| **rank <= 10).map(|rank| 1.0 / *rank as f64);
        Self {
            examples: ranks.len(),
            loss,
            mrr_at_10: reciprocal_ranks.sum::<f64>() / count,
            recall_at_1: recall_at(1),
            recall_at_5: recall_at(5),
            recall_at_10: recall_at(10),
        }
    }
}

impl TaskMetrics for SimilarityMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }
}

impl TaskMetrics for RetrievalMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_start_at_one() {
        let metrics = RetrievalMetrics::new(&[1, 2, 11, 5], 0.5);
        assert_eq!([metrics.recall_at_1, metrics.recall_at_5, metrics.recall_at_10], [0.25, 0.75, 0.75]);
        assert!((metrics.mrr_at_10 - (1.0 + 0.5 + 0.2) / 4.0).abs() < 1e-12);
        assert_eq!(RetrievalMetrics::new(&[], 0.0).recall_at_1, 0.0);
    }
}
