//! One pre-norm layer: queries, keys and values from one map, and a gated network whose two halves come from one.

use super::config::{AttentionKind, Config};
use crate::error::Result;
use crate::model::attention::SelfAttention;
use crate::model::hooked_ops;
use crate::model::hooks::Sublayer;
use crate::model::layer_weights::LayerWeights;
use crate::model::loader::{BiasPresence, CheckpointLoader};
use crate::model::{Hooks, Module, RequiredRows};
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::Activation;
use espalier_tensor::rotary::{self, RotaryTable};
use espalier_tensor::{Backend, Tape, Var};
use std::sync::Arc;

pub struct Layer {
    pub weights: LayerWeights,
    hidden: usize,
    attention: SelfAttention,
}

/// What layers of either kind share.
pub struct AttentionVariants {
    global_rotary: Arc<RotaryTable>,
    sliding_rotary: Arc<RotaryTable>,
    sliding_mask: Arc<AttentionMask>,
}

impl AttentionVariants {
    pub fn new(backend: &dyn Backend, config: &Config) -> Result<Self> {
        let head_dim = config.hidden_size / config.heads;
        let rotary_table = |theta| {
            let frequencies = rotary::inverse_frequencies(theta, head_dim);
            RotaryTable::new(backend, config.max_position_embeddings, &frequencies, 1.0).map(Arc::new)
        };
        let window = Arc::new(AttentionMask::symmetric_window(config.sliding_window_radius));
        Ok(Self {
            global_rotary: rotary_table(config.global_theta)?,
            sliding_rotary: rotary_table(config.local_theta)?,
            sliding_mask: window,
        })
    }

    fn attention(&self, heads: usize, kind: AttentionKind) -> SelfAttention {
        let (rotation, distance) = match kind {
            AttentionKind::Global => (&self.global_rotary, None),
            AttentionKind::Sliding => (&self.sliding_rotary, Some(Arc::clone(&self.sliding_mask))),
        };
        SelfAttention { heads, rotary: Some(Arc::clone(rotation)), mask: distance }
    }
}

impl Layer {
    pub fn load(
        loader: &mut CheckpointLoader,
        index: usize,
        config: &Config,
        variants: &AttentionVariants,
    ) -> Result<Self> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let [norm_bias, attention_bias, mlp_bias] =
            [config.norm_bias, config.attention_bias, config.mlp_bias].map(BiasPresence::from_flag);
        let mut weights = LayerWeights::new(index, "layers", "model");
        // Not in the first layer: the embeddings are normed already.
        if index > 0 {
            weights.load_norm(loader, (Module::AttentionNorm, "attn_norm"), hidden, norm_bias)?;
        }
        weights.load_linear(loader, (Module::QueryKeyValue, "attn.Wqkv"), [hidden, 3 * hidden], attention_bias)?;
        weights.load_linear(loader, (Module::AttentionOutput, "attn.Wo"), [hidden, hidden], attention_bias)?;
        weights.load_norm(loader, (Module::FeedForwardNorm, "mlp_norm"), hidden, norm_bias)?;
        weights.load_linear(loader, (Module::FeedForwardGateIn, "mlp.Wi"), [hidden, 2 * intermediate], mlp_bias)?;
        weights.load_linear(loader, (Module::FeedForwardOut, "mlp.Wo"), [intermediate, hidden], mlp_bias)?;
        Ok(Self { weights, hidden, attention: variants.attention(config.heads, config.attention_kinds[index]) })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var> {
        let (weights, index) = (&self.weights, self.weights.layer_index());
        let normalized = match weights.norm_at(Module::AttentionNorm) {
            Some(_) => weights.forward_norm(tape, hooks, Module::AttentionNorm, input, None)?,
            None => input,
        };
        let qkv = weights.forward_linear(tape, hooks, Module::QueryKeyValue, normalized)?;
        let slice_part =
            |tape: &mut Tape, index: usize| tape.slice_channels(qkv, index * self.hidden..(index + 1) * self.hidden);
        let (query, key, value) = (slice_part(tape, 0)?, slice_part(tape, 1)?, slice_part(tape, 2)?);
        let [query, input] = [required_rows.select(tape, query)?, required_rows.select(tape, input)?];
        let attention_output = self.attention.forward(tape, hooks, index, [query, key, value])?;
        let attention_output = weights.forward_linear(tape, hooks, Module::AttentionOutput, attention_output)?;
        let residual = hooked_ops::add_residual(tape, hooks, (index, Sublayer::Attention), input, attention_output)?;
        let normalized = weights.forward_norm(tape, hooks, Module::FeedForwardNorm, residual, None)?;
        let gate_and_up = weights.forward_linear(tape, hooks, Module::FeedForwardGateIn, normalized)?;
        let intermediate = tape.glu(Activation::Gelu, gate_and_up)?;
        let feed_forward_output = weights.forward_linear(tape, hooks, Module::FeedForwardOut, intermediate)?;
        hooked_ops::add_residual(tape, hooks, (index, Sublayer::FeedForward), residual, feed_forward_output)
    }
}
