//! What the methods with virtual tokens share: what the tokens start from, and the small network that may make them.

use super::targets::MethodValidator;
use crate::adapter::{ParameterBuilder, TensorInit};
use crate::error::{Error, FieldError, Problem, Result};
use crate::model::{BaseModel, FirstTrainableLayer, Hooks, VirtualTokens};
use espalier_tensor::backend::Activation;
use espalier_tensor::backend::PrependedRows;
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{ParamId, Tape, Var};
use std::ops::Range;

/// The published tensor of a soft prompt: `(virtual tokens, hidden)`.
pub const PROMPT_TENSOR_NAME: &str = "prompt";

/// How many there are where nothing is said: with more, other rows of a sentence encoder's are pooled, and it is worse before
/// and after training (`benches/README.md`).
pub const DEFAULT_NUM_VIRTUAL_TOKENS: usize = 5;

/// Real text must keep some room.
pub fn check_count(validator: &mut MethodValidator, count: usize, max_tokens: usize) {
    let max_count = max_tokens / 2;
    let message = format!("num_virtual_tokens must be between 1 and {max_count}, half of what this base can read");
    validator.require((1..=max_count).contains(&count), "num_virtual_tokens", message);
}

/// Tokens of the vocabulary drawn without preference.
pub fn sample_token_ids(base: &BaseModel, count: usize, seed: u64, name: &str) -> Vec<u32> {
    let mut random = SeededRng::new(seed, &["vocabulary", name]);
    let vocabulary_size = base.info().vocabulary_size as f32;
    (0..count).map(|_| ((random.uniform() * vocabulary_size) as u32).min(vocabulary_size as u32 - 1)).collect()
}

/// A text's tokens without special ones, repeated or cut to the number.
///
/// # Errors
/// `Invalid` (`invalid_method`) where the text has none.
pub fn tile_token_ids(base: &BaseModel, text: &str, count: usize) -> Result<Vec<u32>> {
    let text_ids = base.tokenizer().encode_without_special_tokens(text)?;
    if text_ids.is_empty() {
        let message = "the base's tokenizer makes no token of the text";
        let field_error = FieldError::at_pointer("/method/init/text", message);
        return Err(Error::Invalid(Problem::new("invalid_method", message).with_errors(vec![field_error])));
    }
    Ok(text_ids.iter().copied().cycle().take(count).collect())
}

/// Dense layers with an activation between them, over rows that are learned themselves: what a prompt is made by in
/// training, and no longer needed then.
pub struct PromptEncoder {
    embedding: ParamId,
    linear_layers: Vec<(ParamId, ParamId)>,
    activation: Activation,
}

impl PromptEncoder {
    /// `widths` are those between the layers, the first being the rows'.
    pub fn build(count: usize, layer_widths: &[usize], activation: Activation, builder: &mut ParameterBuilder) -> Self {
        let embedding =
            builder.add("encoder.embedding".to_string(), &[count, layer_widths[0]], TensorInit::Normal(1.0));
        let add_layer =
            |(index, pair): (usize, &[usize])| add_linear(builder, &format!("encoder.{index}"), pair[1], pair[0]);
        Self { embedding, linear_layers: layer_widths.windows(2).enumerate().map(add_layer).collect(), activation }
    }

    /// What comes out of the last layer, with the activation where `is_open`: others follow.
    pub fn forward(&self, tape: &mut Tape, activate_last: bool) -> Result<Var> {
        let mut hidden = tape.parameter(self.embedding)?;
        for (index, (weight, bias)) in self.linear_layers.iter().enumerate() {
            hidden = tape.dense(hidden, *weight, *bias)?;
            if activate_last || index + 1 < self.linear_layers.len() {
                hidden = tape.activate(self.activation, hidden)?;
            }
        }
        Ok(hidden)
    }
}

/// A dense layer as PyTorch draws it: weight `(output, input)`, bias 0.
pub fn add_linear(builder: &mut ParameterBuilder, name: &str, output: usize, input: usize) -> (ParamId, ParamId) {
    let weight = builder.add(format!("{name}.weight"), &[output, input], TensorInit::LinearDefault);
    (weight, builder.add(format!("{name}.bias"), &[output], TensorInit::Zeros))
}

enum PromptSource {
    Learned(ParamId),
    Encoded(PromptEncoder),
}

/// Virtual tokens in front of every sequence.
pub struct SoftPrompt {
    source: PromptSource,
    num_virtual_tokens: usize,
}

impl SoftPrompt {
    pub fn learned(embeddings: ParamId, num_virtual_tokens: usize) -> Self {
        Self { source: PromptSource::Learned(embeddings), num_virtual_tokens }
    }

    pub fn encoded(encoder: PromptEncoder, num_virtual_tokens: usize) -> Self {
        Self { source: PromptSource::Encoded(encoder), num_virtual_tokens }
    }

    /// `(virtual tokens, hidden)`
    pub fn embeddings(&self, tape: &mut Tape) -> Result<Var> {
        match &self.source {
            PromptSource::Learned(rows) => Ok(tape.parameter(*rows)?),
            PromptSource::Encoded(encoder) => encoder.forward(tape, false),
        }
    }
}

impl Hooks for SoftPrompt {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::Embeddings
    }

    fn virtual_tokens(&self) -> VirtualTokens {
        VirtualTokens::Prompt(self.num_virtual_tokens)
    }

    fn soft_prompts(&self, tape: &mut Tape, sequences: Range<usize>) -> Result<Vec<PrependedRows<Var>>> {
        Ok(vec![PrependedRows { sequences, rows: self.embeddings(tape)? }])
    }
}
