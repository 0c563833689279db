//! Training objective: the targets of a job's examples, their loss and its gradient, and their metrics.

use super::Example;
use super::lm_loss::TokenLosses;
use super::metrics::TaskMetrics;
use super::row_targets::{self, RowTargets};
use crate::error::{Error, Result};
use crate::model::{BaseModel, Tokens};
use espalier_tensor::{Buffer, Tape, Tensor, Var};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// Objective of a task on the examples of a job. Examples are named by their index.
pub trait Objective: Debug + Send + Sync {
    fn example_count(&self) -> usize;

    /// Rows of the head's input that belong to an example.
    fn row_count(&self, example: usize) -> usize;

    /// Sum of the losses of the batch's examples, and its gradient with respect to the outputs divided by `denominator`.
    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient>;

    /// Metrics of these examples, given their evaluation outputs in this order.
    fn metrics(&self, outputs: &[f32], examples: &[usize], labels: &[String]) -> Box<dyn TaskMetrics>;

    /// Divisor of a batch's loss: its number of examples, words or tokens.
    fn loss_denominator(&self, examples: &[usize]) -> usize {
        examples.len()
    }

    /// Stratum of each example for the validation split, and the number of strata.
    fn strata(&self) -> (Vec<u32>, usize) {
        (vec![0; self.example_count()], 1)
    }

    /// Whether the base reads the same tokens in every epoch. If not, its features cannot be cached.
    fn is_epoch_invariant(&self) -> bool {
        true
    }

    /// Fits statistics of the targets, such as their scale, to the training examples.
    fn fit(&mut self, _training: &[usize]) {}

    /// Tokens as the base reads them, and the label ids of a language model's loss, concatenated.
    fn prepare(
        &self,
        tokens: Vec<Arc<Tokens>>,
        _examples: &[usize],
        _seed: MaskingSeed,
    ) -> (Vec<Arc<Tokens>>, Vec<u32>) {
        (tokens, Vec::new())
    }

    /// Targets of the rows that a trained head reads; `None` where no head is trained.
    fn row_targets(&self, _examples: &[usize]) -> Option<RowTargets> {
        None
    }

    /// Head tensors with outputs in the unit of the dataset, from those with outputs in the unit of training.
    fn denormalize_head(&self, weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        weights
    }

    /// Inverse of [`Self::denormalize_head`].
    fn normalize_head(&self, weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        weights
    }

    /// The objective as one whose loss depends on the whole batch, where it is one.
    fn as_batch_objective(&self) -> Option<&dyn BatchObjective> {
        None
    }

    /// The objective as one that is relative to a reference policy, where it is one.
    fn as_reference_objective(&self) -> Option<&dyn ReferenceObjective> {
        None
    }
}

/// Objective with in-batch negatives: the loss of an example depends on the other examples of its batch.
pub trait BatchObjective {
    /// Sum of the losses of a batch, and its gradient with respect to the rows of all examples, concatenated.
    fn batch_loss(&self, rows: &[f32], examples: &[usize]) -> (f64, Vec<f64>);
}

/// Objective relative to the log-probabilities that a reference policy, the model before the first step, gives to pairs of answers.
pub trait ReferenceObjective {
    /// Log-probabilities of all pairs, from the evaluation outputs of all examples.
    fn reference_logprobs(&self, outputs: &[f32]) -> Vec<PairLogProbs>;

    /// The objective relative to these log-probabilities.
    fn with_reference(&self, reference_logprobs: &[PairLogProbs]) -> Arc<dyn Objective>;
}

/// Log-probabilities of the chosen and the rejected answer.
pub type PairLogProbs = [f64; 2];

/// What an objective is made from.
pub struct ObjectiveContext<'a> {
    pub base: &'a BaseModel,
    /// In the order of the head's rows.
    pub labels: &'a [String],
    pub examples: &'a [&'a Example],
    /// Sequences of each example.
    pub tokens: &'a [Vec<Arc<Tokens>>],
    pub seed: u64,
}

impl ObjectiveContext<'_> {
    /// Number of target positions of each example.
    pub fn target_counts(&self) -> Vec<usize> {
        let count = |sequences: &Vec<Arc<Tokens>>| sequences.iter().map(|tokens| tokens.target_positions.len()).sum();
        self.tokens.iter().map(count).collect()
    }
}

/// Seed of the masked tokens besides the job's seed and the example.
#[derive(Debug, Clone, Copy)]
pub enum MaskingSeed {
    Epoch(u64),
    Evaluation,
}

/// Examples of a micro-batch.
#[derive(Debug, Clone, Copy)]
pub struct MicroBatch<'a> {
    pub examples: &'a [usize],
    /// Label ids of a language model's loss, as [`Objective::prepare`] gives them.
    pub label_ids: &'a [u32],
}

/// Loss and its gradient with respect to the outputs, on the device.
pub struct LossAndGradient {
    pub loss: f64,
    pub gradient: Buffer,
}

/// Outputs of a forward pass, `(rows, outputs)`.
pub struct LossContext<'a> {
    pub base: &'a BaseModel,
    pub tape: &'a Tape,
    pub outputs: Var,
}

impl LossContext<'_> {
    /// Loss of rows with targets of their own.
    pub fn row_loss(&self, targets: &RowTargets, denominator: f64) -> Result<LossAndGradient> {
        let backend = self.base.backend().as_ref();
        let (loss, gradient) = targets.loss(backend, &self.tape.device_buffer(self.outputs)?)?;
        Ok(LossAndGradient { loss, gradient: backend.scale(&gradient, 1.0 / denominator)? })
    }

    /// Loss that is computed on the host from the rows of all examples.
    pub fn host_loss(&self, denominator: f64, loss: impl FnOnce(&[f32]) -> (f64, Vec<f64>)) -> Result<LossAndGradient> {
        let backend = self.base.backend().as_ref();
        let (loss, gradient) = row_targets::on_host(backend, &self.tape.device_buffer(self.outputs)?, loss)?;
        Ok(LossAndGradient { loss, gradient: backend.scale(&gradient, 1.0 / denominator)? })
    }

    /// Cross entropy of each row over the vocabulary.
    pub fn token_losses(&self, label_ids: &[u32]) -> Result<TokenLosses> {
        TokenLosses::new(self.base, self.tape, self.outputs, label_ids)
    }

    /// Loss of a language model with a weight per token.
    pub fn weighted_token_loss(
        &self,
        loss: f64,
        token_losses: TokenLosses,
        weights: impl Iterator<Item = f64>,
    ) -> Result<LossAndGradient> {
        let gradient = self.base.backend().upload(&token_losses.into_weighted_gradient(weights))?;
        Ok(LossAndGradient { loss, gradient })
    }

    /// Summed cross entropy of a language model's tokens.
    pub fn token_loss(&self, label_ids: &[u32], denominator: f64) -> Result<LossAndGradient> {
        let token_losses = self.token_losses(label_ids)?;
        let loss = token_losses.losses.iter().sum();
        self.weighted_token_loss(loss, token_losses, std::iter::repeat(1.0 / denominator))
    }
}

/// Class ids of labels, by name.
pub struct LabelIds<'a> {
    ids: BTreeMap<&'a str, u32>,
}

impl<'a> LabelIds<'a> {
    pub fn new(labels: &'a [String]) -> Self {
        Self { ids: labels.iter().map(String::as_str).zip(0..).collect() }
    }

    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// # Errors
    /// `Invalid` (`unknown_label`) for a label that the job does not have.
    pub fn id(&self, label: &str, line: u64) -> Result<u32> {
        self.ids.get(label).copied().ok_or_else(|| {
            let detail = format!("the label \"{label}\" in line {line} is not among the job's labels");
            Error::invalid("unknown_label", detail)
        })
    }

    /// Ids of a set of labels, sorted.
    ///
    /// # Errors
    /// As [`Self::id`].
    pub fn id_set(&self, labels: &[String], line: u64) -> Result<Vec<u32>> {
        let mut set: Vec<u32> = labels.iter().map(|label| self.id(label, line)).collect::<Result<_>>()?;
        set.sort_unstable();
        set.dedup();
        Ok(set)
    }
}

/// Clones the elements of these examples.
pub fn gather<T: Clone>(all: &[T], examples: &[usize]) -> Vec<T> {
    examples.iter().map(|example| all[*example].clone()).collect()
}
