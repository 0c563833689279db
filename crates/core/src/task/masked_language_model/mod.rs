//! Masked language modelling: predicts masked tokens (Devlin et al. 2019). Adapts to a domain from raw texts; other jobs may
//! start from the adapter.
//!
//! The objective is cross entropy of the masked tokens, which are drawn again in every epoch and are the same in every evaluation.

use super::{
    Example, HeadSpec, Input, InputProblem, PostprocessContext, RowSchema, Task, TaskDefaults, UntrainableRows, lm_loss,
};
use crate::error::{Error, FieldError, Result};
use crate::model::{BaseModelInfo, MlmVocabulary, TextLimits, Tokenizer, Tokens};
use crate::task::lm_loss::LanguageModelMetrics;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MaskingSeed, MicroBatch, Objective, ObjectiveContext};
use espalier_tensor::seeded_rng::SeededRng;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = MaskedLanguageModel)]
pub struct Config {
    /// Share of a text's tokens that are predicted, drawn again in every epoch. Of these 80 % are masked, 10 % replaced by a
    /// random token, and 10 % kept.
    #[schema(minimum = 0.01, maximum = 0.5)]
    pub mask_probability: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { mask_probability: 0.15 }
    }
}

/// Candidate tokens for each mask of a text, in order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Fills)]
pub struct Prediction {
    pub fills: Vec<Vec<Fill>>,
}

/// Candidate for a mask, the most probable first.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Fill {
    pub token: String,
    pub score: f32,
}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "masked_language_model"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults::TEXT
    }

    fn metric_names(&self) -> &'static [&'static str] {
        &["loss", "accuracy", "perplexity"]
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        &[RowSchema::Text]
    }

    fn head(&self, _labels: &[String]) -> HeadSpec {
        HeadSpec::MASKED_LM
    }

    /// The positions of the masks are the target positions.
    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens> {
        let mut tokens = tokenizer.encode_within(&input.joined_text(), None, limits)?;
        let mask_id = tokenizer.mask_token().map(|(mask, _)| mask);
        tokens.target_positions =
            (0..).zip(&tokens.ids).filter(|(_, id)| Some(**id) == mask_id).map(|(position, _)| position).collect();
        Ok(tokens)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        Ok(vec![example.tokenize(tokenizer, max_length)?])
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Skip
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(Box::new(MaskedTokenObjective::new(context, self)?))
    }

    fn postprocess(
        &self,
        context: &PostprocessContext,
        outputs: Vec<f32>,
        _input: &Input,
    ) -> Result<super::Prediction> {
        let token_text = |id| context.base.tokenizer().decode_token(id);
        let vocabulary_size = context.base.info().vocabulary_size;
        let prediction = postprocess(&outputs, vocabulary_size, context.top_k, token_text);
        Ok(super::Prediction::MaskedLanguageModel(prediction))
    }

    fn validate(&self) -> Vec<FieldError> {
        match (0.01..=0.5).contains(&self.mask_probability) {
            true => Vec::new(),
            false => {
                vec![FieldError::at_pointer("/task/mask_probability", "mask_probability must be between 0.01 and 0.5")]
            }
        }
    }

    fn input_problem(&self, base: &BaseModelInfo, tokens: &Tokens) -> Option<InputProblem> {
        let mask = base.mask_token.as_ref().filter(|_| tokens.target_positions.is_empty())?;
        let message = format!("put {mask} where a token is to be predicted, within the maximum length of the adapter");
        Some(InputProblem { code: "no_mask", message })
    }
}

impl Config {
    /// Number of tokens that are predicted: at least one, unless all are special.
    pub fn mask_count(&self, tokens: &Tokens, masking: &MlmVocabulary) -> usize {
        let maskable = masking.maskable_positions(tokens).len();
        ((maskable as f64 * self.mask_probability).round() as usize).max(1).min(maskable)
    }

    /// Tokens with some of them masked, and the original ids of these.
    pub fn mask(&self, tokens: &Tokens, masking: &MlmVocabulary, mut random: SeededRng) -> (Tokens, Vec<u32>) {
        let mut positions = masking.maskable_positions(tokens);
        random.shuffle(&mut positions);
        positions.truncate(self.mask_count(tokens, masking));
        positions.sort_unstable();
        let original_ids = positions.iter().map(|row| tokens.ids[*row as usize]).collect();
        let mut ids = tokens.ids.clone();
        for row in &positions {
            match random.uniform_below(10) {
                0..8 => ids[*row as usize] = masking.mask_id,
                8 => ids[*row as usize] = masking.replacement_id(random.uniform_below(masking.replacement_count())),
                _ => {}
            }
        }
        (Tokens { ids, target_positions: positions, ..tokens.clone() }, original_ids)
    }
}

/// Prediction from the [`lm_loss::top_tokens`] of a text's masks, concatenated.
pub fn postprocess(
    top_tokens: &[f32],
    vocabulary_size: usize,
    top_k: usize,
    token_text: impl Fn(u32) -> String,
) -> Prediction {
    let fill = |pair: &[f32]| Fill { token: token_text(pair[0] as u32), score: pair[1] };
    let fills = top_tokens
        .chunks_exact(2 * lm_loss::top_token_count(vocabulary_size))
        .map(|row| row.chunks_exact(2).take(top_k).map(fill).collect());
    Prediction { fills: fills.collect() }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn masking() -> MlmVocabulary {
        MlmVocabulary::new(4, [0, 1, 2, 3, 4].into(), 100)
    }

    #[test]
    fn a_share_of_the_tokens_is_masked_and_never_a_special_token() {
        let tokens = Tokens::from_ids([vec![0], (10..50).collect(), vec![2]].concat());
        let config = Config::default();
        let (masked, hidden) = config.mask(&tokens, &masking(), SeededRng::new(1, &["a"]));
        assert_eq!((masked.target_positions.len(), hidden.len()), (6, 6));
        for (row, id) in masked.target_positions.iter().zip(&hidden) {
            assert_eq!(tokens.ids[*row as usize], *id);
        }
        let changed = masked.ids.iter().zip(&tokens.ids).enumerate().filter(|(_, (now, before))| now != before);
        assert!(changed.clone().count() >= 3);
        assert!(changed.clone().all(|(row, _)| masked.target_positions.contains(&(row as u32))));
        assert!(changed.clone().any(|(_, (now, _))| *now == 4));
        assert_ne!(config.mask(&tokens, &masking(), SeededRng::new(1, &["b"])).0, masked);
        assert_eq!(config.mask(&Tokens::from_ids(vec![0, 9, 2]), &masking(), SeededRng::new(1, &["c"])).1, [9]);
        assert_eq!(config.mask(&Tokens::from_ids(vec![0, 2]), &masking(), SeededRng::new(1, &["d"])).1.len(), 1);
    }

    #[test]
    fn fills_are_sorted_by_probability() {
        let rows = [[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]].map(|row| lm_loss::top_tokens(&row)).concat();
        let prediction = postprocess(&rows, 3, 2, |id| format!("w{id}"));
        let tokens: Vec<Vec<&str>> =
            prediction.fills.iter().map(|fills| fills.iter().map(|fill| fill.token.as_str()).collect()).collect();
        assert_eq!(tokens, [["w1", "w2"], ["w0", "w1"]]);
        assert!((prediction.fills[0][0].score - 0.665_241).abs() < 1e-5);
    }
}
