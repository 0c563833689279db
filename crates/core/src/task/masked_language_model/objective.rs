//! Objective of masked language modelling: cross entropy of the masked tokens, which are drawn again in every epoch and are the
//! same in every evaluation.

use super::Config;
use crate::error::{Error, Result};
use crate::model::{MlmVocabulary, Tokens};
use crate::task::lm_loss::LanguageModelMetrics;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MaskingSeed, MicroBatch, Objective, ObjectiveContext};
use espalier_tensor::seeded_rng::SeededRng;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

/// The masked tokens of each example, which has one sequence.
pub struct MaskedTokenObjective {
    vocabulary: MlmVocabulary,
    config: Config,
    seed: u64,
    /// Masked tokens of each example.
    token_counts: Vec<usize>,
}

impl MaskedTokenObjective {
    /// # Errors
    /// `Internal` where the base's tokenizer has no mask, which is refused at submission.
    pub fn new(context: &ObjectiveContext, config: &Config) -> Result<Self> {
        let vocabulary = context.base.tokenizer().mlm_vocabulary();
        let vocabulary = vocabulary.ok_or_else(|| Error::internal("this base's tokenizer has no mask"))?;
        let count =
            |sequences: &Vec<Arc<Tokens>>| sequences.iter().map(|tokens| config.mask_count(tokens, &vocabulary)).sum();
        let token_counts = context.tokens.iter().map(count).collect();
        Ok(Self { vocabulary, config: config.clone(), seed: context.seed, token_counts })
    }
}

impl Debug for MaskedTokenObjective {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        formatter.debug_struct("MaskedTokenObjective").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Objective for MaskedTokenObjective {
    fn example_count(&self) -> usize {
        self.token_counts.len()
    }

    fn row_count(&self, example: usize) -> usize {
        self.token_counts[example]
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.token_loss(batch.label_ids, denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], _labels: &[String]) -> Box<dyn TaskMetrics> {
        Box::new(LanguageModelMetrics::new(outputs, examples.len()))
    }

    fn loss_denominator(&self, examples: &[usize]) -> usize {
        examples.iter().map(|example| self.token_counts[*example]).sum()
    }

    fn is_epoch_invariant(&self) -> bool {
        false
    }

    fn prepare(&self, tokens: Vec<Arc<Tokens>>, examples: &[usize], seed: MaskingSeed) -> (Vec<Arc<Tokens>>, Vec<u32>) {
        let seed_part = match seed {
            MaskingSeed::Epoch(epoch) => epoch.to_string(),
            MaskingSeed::Evaluation => "measured".to_string(),
        };
        let mask = |(tokens, example): (Arc<Tokens>, &usize)| {
            let random = SeededRng::new(self.seed, &["hidden", &seed_part, &example.to_string()]);
            let (tokens, original_ids) = self.config.mask(&tokens, &self.vocabulary, random);
            (Arc::new(tokens), original_ids)
        };
        let (tokens, original_ids): (Vec<_>, Vec<_>) = tokens.into_iter().zip(examples).map(mask).unzip();
        (tokens, original_ids.concat())
    }
}
