//! Figures of embeddings: how well cosines follow scores, or how early a text finds what belongs to it.

use super::regression::{pearson, ranks};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Of pairs with a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Similarity {
    pub examples: usize,
    /// Mean squared difference of cosines and scores.
    pub loss: f64,
    /// Of cosines and scores; 0 where one side does not vary.
    pub spearman: f64,
    pub pearson: f64,
}

/// Of texts that look for what belongs to them among everything that belongs to any of them, and among the negatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Retrieval {
    pub examples: usize,
    /// The mean loss, in batches of 32 in the order of the data.
    pub loss: f64,
    /// The mean of 1 over the rank of the first hit, 0 beyond the tenth.
    pub mrr_at_10: f64,
    /// The share of texts whose first hit is among so many.
    pub recall_at_1: f64,
    pub recall_at_5: f64,
    pub recall_at_10: f64,
}

pub fn similarity(cosines: &[f64], scores: &[f64], loss: f64) -> Similarity {
    Similarity {
        examples: scores.len(),
        loss,
        spearman: pearson(&ranks(cosines), &ranks(scores)),
        pearson: pearson(cosines, scores),
    }
}

/// `places` are the ranks of the first hits, from 1 on.
pub fn retrieval(ranks: &[usize], loss: f64) -> Retrieval {
    let count = ranks.len().max(1) as f64;
    let recall_at = |k: usize| ranks.iter().filter(|place| **place <= k).count() as f64 / count;
    let reciprocal_ranks = ranks.iter().filter(|place| **place <= 10).map(|place| 1.0 / *place as f64);
    Retrieval {
        examples: ranks.len(),
        loss,
        mrr_at_10: reciprocal_ranks.sum::<f64>() / count,
        recall_at_1: recall_at(1),
        recall_at_5: recall_at(5),
        recall_at_10: recall_at(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_start_at_one() {
        let metrics = retrieval(&[1, 2, 11, 5], 0.5);
        assert_eq!([metrics.recall_at_1, metrics.recall_at_5, metrics.recall_at_10], [0.25, 0.75, 0.75]);
        assert!((metrics.mrr_at_10 - (1.0 + 0.5 + 0.2) / 4.0).abs() < 1e-12);
        assert_eq!(retrieval(&[], 0.0).recall_at_1, 0.0);
    }
}
