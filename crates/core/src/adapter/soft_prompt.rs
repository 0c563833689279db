//! Virtual tokens: their initial token ids, the encoder that may generate them during training, and the soft prompt itself.

use super::parameter_builder::{ParameterBuilder, TensorInit, TensorMap};
use super::validator::MethodValidator;
use crate::error::{Error, FieldError, Problem, Result};
use crate::model::{BaseModel, FirstTrainableLayer, Hooks, VirtualTokens};
use espalier_tensor::backend::{Activation, PrependedRows};
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{ParamId, Recording, Tape, Var};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use utoipa::ToSchema;

/// Name of a soft prompt's published tensor, `(virtual tokens, hidden)`.
pub const PROMPT_TENSOR_NAME: &str = "prompt";

/// Default number of virtual tokens. More of them shift the pooled rows of a sentence encoder further, with a lower accuracy
/// before and after training (`benches/README.md`).
pub const DEFAULT_NUM_VIRTUAL_TOKENS: usize = 5;

/// Largest width of an encoder's hidden layer; a wider one costs more than the base.
pub const MAX_ENCODER_SIZE: usize = 8192;

/// Checks that the virtual tokens leave at least half of the context window to the text.
pub fn check_count(validator: &mut MethodValidator, count: usize, max_tokens: usize) {
    let max_count = max_tokens / 2;
    let message = format!("num_virtual_tokens must be between 1 and {max_count}, half of what this base can read");
    validator.require((1..=max_count).contains(&count), "num_virtual_tokens", message);
}

/// Initial value of virtual tokens: `"vocabulary"`, tokens drawn at random from the base's vocabulary, or `{"text": "…"}`, whose
/// tokens are repeated or truncated to the number of virtual tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VirtualTokenInit)]
pub enum VirtualTokenInit {
    #[default]
    Vocabulary,
    Text(String),
}

impl VirtualTokenInit {
    pub fn validate(&self, validator: &mut MethodValidator) {
        if let Self::Text(text) = self {
            validator.require(!text.trim().is_empty(), "init/text", "the text is empty: leave init out, or write one");
        }
    }

    /// Returns `count` token ids.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) if the text has no token.
    pub fn token_ids(&self, base: &BaseModel, count: usize, seed: u64, name: &str) -> Result<Vec<u32>> {
        match self {
            Self::Vocabulary => Ok(sample_token_ids(base, count, seed, name)),
            Self::Text(text) => tile_token_ids(base, text, count),
        }
    }
}

/// Draws token ids uniformly from the vocabulary.
fn sample_token_ids(base: &BaseModel, count: usize, seed: u64, name: &str) -> Vec<u32> {
    let mut random = SeededRng::new(seed, &["vocabulary", name]);
    let vocabulary_size = base.info().vocabulary_size as f32;
    (0..count).map(|_| ((random.uniform() * vocabulary_size) as u32).min(vocabulary_size as u32 - 1)).collect()
}

/// Token ids of a text without special tokens, repeated or truncated to `count`.
fn tile_token_ids(base: &BaseModel, text: &str, count: usize) -> Result<Vec<u32>> {
    let text_ids = base.tokenizer().encode_without_special_tokens(text)?;
    if text_ids.is_empty() {
        let message = "the base's tokenizer makes no token of the text";
        let field_error = FieldError::at_pointer("/method/init/text", message);
        return Err(Error::Invalid(Problem::new("invalid_method", message).with_errors(vec![field_error])));
    }
    Ok(text_ids.iter().copied().cycle().take(count).collect())
}

/// A multilayer perceptron over trainable embeddings. It generates virtual tokens during training; the published adapter
/// holds only its output.
pub struct PromptEncoder {
    embedding: ParamId,
    layers: Vec<EncoderLayer>,
}

struct EncoderLayer {
    weight: ParamId,
    bias: ParamId,
    activation: Option<Activation>,
}

impl PromptEncoder {
    /// Builds embeddings `(count, embedding_width)` and one linear layer per output width and activation in `layers`.
    pub fn build(
        count: usize,
        embedding_width: usize,
        layers: &[(usize, Option<Activation>)],
        builder: &mut ParameterBuilder,
    ) -> Self {
        let embedding =
            builder.add("encoder.embedding".to_string(), &[count, embedding_width], TensorInit::Normal(1.0));
        let mut in_features = embedding_width;
        let mut add_layer = |(index, &(out_features, activation)): (usize, &(usize, Option<Activation>))| {
            let name = format!("encoder.{index}");
            let (weight, bias) = builder.add_linear(&name, out_features, in_features, TensorInit::LinearDefault);
            in_features = out_features;
            EncoderLayer { weight, bias, activation }
        };
        Self { embedding, layers: layers.iter().enumerate().map(&mut add_layer).collect() }
    }

    /// The output of the last layer, `(virtual tokens, width)`.
    pub fn forward(&self, tape: &mut Tape) -> Result<Var> {
        let mut hidden = tape.parameter(self.embedding)?;
        for layer in &self.layers {
            hidden = tape.dense(hidden, layer.weight, layer.bias)?;
            if let Some(activation) = layer.activation {
                hidden = tape.activate(activation, hidden)?;
            }
        }
        Ok(hidden)
    }
}

/// Removes the encoder's tensors, the projections to keys and values included, from `weights` and returns a builder that
/// restores them.
pub fn take_encoder(weights: &mut TensorMap) -> ParameterBuilder {
    let is_encoder_tensor = |name: &str| name.starts_with("encoder.") || name.contains(".prefix_");
    let (encoder, remaining) = std::mem::take(weights).into_iter().partition(|(name, _)| is_encoder_tensor(name));
    *weights = remaining;
    ParameterBuilder::from_weights(encoder)
}

/// A tape without gradients on the builder's tensors.
pub fn inference_tape(base: &BaseModel, builder: ParameterBuilder) -> Result<Tape> {
    let device_parameters = base.backend().upload_parameters(&builder.build()?.tensors)?;
    Ok(Tape::new(Arc::clone(base.backend()), device_parameters, Recording::Off))
}

enum PromptSource {
    Learned(ParamId),
    Encoded(PromptEncoder),
}

/// Hooks that prepend virtual tokens to every sequence.
pub struct SoftPrompt {
    source: PromptSource,
    num_virtual_tokens: usize,
}

impl SoftPrompt {
    /// A prompt whose embeddings `(virtual tokens, hidden)` are a tensor of the adapter.
    pub fn learned(embeddings: ParamId, num_virtual_tokens: usize) -> Self {
        Self { source: PromptSource::Learned(embeddings), num_virtual_tokens }
    }

    /// A prompt whose embeddings an encoder computes.
    pub fn encoded(encoder: PromptEncoder, num_virtual_tokens: usize) -> Self {
        Self { source: PromptSource::Encoded(encoder), num_virtual_tokens }
    }

    /// The embeddings, `(virtual tokens, hidden)`.
    pub fn embeddings(&self, tape: &mut Tape) -> Result<Var> {
        match &self.source {
            PromptSource::Learned(rows) => Ok(tape.parameter(*rows)?),
            PromptSource::Encoded(encoder) => encoder.forward(tape),
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
