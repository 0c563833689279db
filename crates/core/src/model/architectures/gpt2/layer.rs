//! One pre-norm decoder layer: queries, keys and values from one map, causal attention, and a network of two maps.

use super::config::Config;
use crate::error::Result;
use crate::model::attention::SelfAttention;
use crate::model::hooked_ops;
use crate::model::hooks::Sublayer;
use crate::model::layer_weights::LayerWeights;
use crate::model::loader::{BiasPresence, CheckpointLoader};
use crate::model::{Hooks, Module, RequiredRows};
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::Activation;
use espalier_tensor::{Tape, Var};
use std::sync::Arc;

pub struct Layer {
    pub weights: LayerWeights,
    hidden_size: usize,
    activation: Activation,
    attention: SelfAttention,
}

impl Layer {
    pub fn load(loader: &mut CheckpointLoader, index: usize, config: &Config) -> Result<Self> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let mut weights = LayerWeights::new(index, "h", "transformer");
        for norm in [(Module::AttentionNorm, "ln_1"), (Module::FeedForwardNorm, "ln_2")] {
            weights.load_norm(loader, norm, hidden, BiasPresence::Present)?;
        }
        for (map, shape) in [
            ((Module::QueryKeyValue, "attn.c_attn"), [hidden, 3 * hidden]),
            ((Module::AttentionOutput, "attn.c_proj"), [hidden, hidden]),
            ((Module::FeedForwardIn, "mlp.c_fc"), [hidden, intermediate]),
            ((Module::FeedForwardOut, "mlp.c_proj"), [intermediate, hidden]),
        ] {
            weights.load_linear(loader, map, shape, BiasPresence::Present)?;
        }
        let mask = Some(Arc::new(AttentionMask::causal(None)));
        let attention = SelfAttention { heads: config.heads, rotary: None, mask };
        Ok(Self { weights, hidden_size: hidden, activation: config.activation, attention })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var> {
        let (weights, index) = (&self.weights, self.weights.layer_index());
        let normalized = weights.forward_norm(tape, hooks, Module::AttentionNorm, input, None)?;
        let qkv = weights.forward_linear(tape, hooks, Module::QueryKeyValue, normalized)?;
        let slice_part = |tape: &mut Tape, index: usize| {
            tape.slice_channels(qkv, index * self.hidden_size..(index + 1) * self.hidden_size)
        };
        let (query, key, value) = (slice_part(tape, 0)?, slice_part(tape, 1)?, slice_part(tape, 2)?);
        let [query, input] = [required_rows.select(tape, query)?, required_rows.select(tape, input)?];
        let attention_output = self.attention.forward(tape, hooks, index, [query, key, value])?;
        let attention_output = weights.forward_linear(tape, hooks, Module::AttentionOutput, attention_output)?;
        let residual = hooked_ops::add_residual(tape, hooks, (index, Sublayer::Attention), input, attention_output)?;
        let normalized = weights.forward_norm(tape, hooks, Module::FeedForwardNorm, residual, None)?;
        let intermediate = weights.forward_linear(tape, hooks, Module::FeedForwardIn, normalized)?;
        let intermediate = tape.activate(self.activation, intermediate)?;
        let feed_forward_output = weights.forward_linear(tape, hooks, Module::FeedForwardOut, intermediate)?;
        hooked_ops::add_residual(tape, hooks, (index, Sublayer::FeedForward), residual, feed_forward_output)
    }
}
