//! Causal language modelling: predicts the next token (Radford et al. 2018). Trained on prompts with completions, on the
//! assistant's messages of conversations, or on raw texts, with cross entropy of the next tokens.

use super::{
    Example, HeadSpec, Input, PostprocessContext, Prediction, RowSchema, Target, Task, TaskDefaults, UntrainableRows,
    lm_tokenize,
};
use crate::error::{Error, Result};
use crate::model::{TextLimits, Tokenizer, Tokens};
use crate::task::lm_loss::LanguageModelMetrics;
use crate::task::lm_tokenize::next_token_ids;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LossAndGradient, LossContext, MaskingSeed, MicroBatch, Objective, ObjectiveContext};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = CausalLanguageModel)]
pub struct Config {}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "causal_language_model"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults::GENERATION
    }

    fn metric_names(&self) -> &'static [&'static str] {
        &["loss", "accuracy", "perplexity"]
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        &[RowSchema::Completion, RowSchema::Messages, RowSchema::Text]
    }

    fn head(&self, _labels: &[String]) -> HeadSpec {
        HeadSpec::CAUSAL_LM
    }

    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens> {
        input.tokenize(tokenizer, limits)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        if let Target::Completion(completion) = &example.target {
            return Ok(vec![lm_tokenize::tokenize_completion(tokenizer, &example.text, completion, max_length)?]);
        }
        if let Target::Conversation(conversation) = &example.target {
            return Ok(vec![lm_tokenize::tokenize_conversation(tokenizer, conversation, max_length)?]);
        }
        lm_tokenize::tokenize_windows(tokenizer, &example.text, max_length)
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Skip
    }

    fn check_trainable(&self, sequences: &[Tokens]) -> Result<()> {
        match sequences.iter().any(lm_tokenize::has_targets) {
            true => Ok(()),
            false => Err(lm_tokenize::nothing_to_learn(sequences)),
        }
    }

    fn packs_raw_text(&self) -> bool {
        true
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(Box::new(NextTokenObjective { token_counts: context.target_counts() }))
    }

    fn postprocess(&self, _context: &PostprocessContext, _outputs: Vec<f32>, _input: &Input) -> Result<Prediction> {
        Err(Error::internal("an adapter that generates text has no predictions"))
    }
}

/// The tokens that follow the target positions.
#[derive(Debug, Clone)]
pub struct NextTokenObjective {
    /// Target positions of each example.
    pub token_counts: Vec<usize>,
}

impl Objective for NextTokenObjective {
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

    fn prepare(
        &self,
        tokens: Vec<Arc<Tokens>>,
        _examples: &[usize],
        _seed: MaskingSeed,
    ) -> (Vec<Arc<Tokens>>, Vec<u32>) {
        let label_ids = tokens.iter().flat_map(|tokens| next_token_ids(tokens)).collect();
        (tokens, label_ids)
    }
}
