//! Embedding: a row of norm 1 per text, close to those of similar texts.
//!
//! Trained on pairs with a similarity score, or on texts with a positive and optionally a negative.
//! Its metrics are the correlation of cosines with scores, or the retrieval of the positives.

use super::{
    Example, HeadSpec, Input, PostprocessContext, Prediction, RowSchema, Target, Task, TaskDefaults, UntrainableRows,
};
use crate::error::Result;
use crate::model::{Pooling, TextLimits, Tokenizer, Tokens};
use crate::task::confidence::{self, Interval, correlation_intervals};
use crate::task::metrics::{TaskMetrics, pearson, spearman};
use crate::task::objective::{Objective, ObjectiveContext};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

mod contrastive;
mod cosine;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmbeddingTask)]
pub struct Config {
    /// Pooling of a sequence to one row; by default the base's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Training loss; by default the one that fits the fields of the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// For rows `{text, text_pair, score}`: squared difference of the cosine and the score (Reimers & Gurevych 2019).
    /// Scores that are not all between -1 and 1 are scaled to the range 0 to 1 of the training data.
    Cosine,
    /// For rows `{text, positive, negative?}`: cross entropy of each text's positive among all positives and negatives of the
    /// batch, with 20 times the cosine as logits (Henderson et al. 2017).
    MultipleNegativesRanking,
}

/// Embedding of one text.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Embedding {
    pub embedding: Vec<f32>,
}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "embedding"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults::TEXT
    }

    fn metric_names(&self) -> &'static [&'static str] {
        match self.loss {
            Some(Loss::Cosine) => &["spearman", "loss", "pearson"],
            Some(Loss::MultipleNegativesRanking) | None => {
                &["mrr_at_10", "loss", "recall_at_1", "recall_at_5", "recall_at_10"]
            }
        }
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        match self.loss {
            None => &[RowSchema::Positive, RowSchema::Score],
            Some(Loss::MultipleNegativesRanking) => &[RowSchema::Positive],
            Some(Loss::Cosine) => &[RowSchema::Score],
        }
    }

    fn head(&self, _labels: &[String]) -> HeadSpec {
        HeadSpec::POOLED_ROW
    }

    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens> {
        input.tokenize(tokenizer, limits)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        let encode = |text: &str| tokenizer.encode(text, None, max_length);
        let text = example.text.as_str();
        if let Target::Positive { positive, negative } = &example.target {
            return [text, positive].into_iter().chain(negative.as_deref()).map(encode).collect();
        }
        if let Target::Score(_) = &example.target {
            return [text].into_iter().chain(example.text_pair.as_deref()).map(encode).collect();
        }
        Err(example.wrong_target(self.type_name()))
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Refuse
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(match self.loss {
            Some(Loss::Cosine) => Box::new(cosine::SimilarityObjective::new(context, self.type_name())?),
            Some(Loss::MultipleNegativesRanking) | None => {
                Box::new(contrastive::ContrastiveObjective::new(context, self.type_name())?)
            }
        })
    }

    fn postprocess(&self, _context: &PostprocessContext, outputs: Vec<f32>, _input: &Input) -> Result<Prediction> {
        Ok(Prediction::Embedding(Embedding { embedding: outputs }))
    }

    fn set_row_schema(&mut self, schema: RowSchema) {
        let loss = match schema {
            RowSchema::Positive => Some(Loss::MultipleNegativesRanking),
            RowSchema::Score => Some(Loss::Cosine),
            RowSchema::Label
            | RowSchema::Labels
            | RowSchema::Value
            | RowSchema::Tags
            | RowSchema::Entities
            | RowSchema::Completion
            | RowSchema::Messages
            | RowSchema::Chosen
            | RowSchema::Text => None,
        };
        self.loss = self.loss.or(loss);
    }

    fn pooling(&self) -> Option<Pooling> {
        self.pooling
    }

    fn set_pooling(&mut self, pooling: Pooling) {
        self.pooling = Some(pooling);
    }
}

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

    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        correlation_intervals(self.pearson, self.spearman, self.examples)
    }
}

impl TaskMetrics for RetrievalMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }

    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        let recall = |recall| confidence::proportion(recall, self.examples);
        vec![("recall_at_1", recall(self.recall_at_1)), ("recall_at_10", recall(self.recall_at_10))]
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
