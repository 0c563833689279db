//! One layer (Vaswani et al. 2017): attention, then a gelu network, each normed together with its residual.

use crate::error::Result;
use crate::model::attention::SelfAttention;
use crate::model::hooked_ops;
use crate::model::hooks::{Sublayer, SublayerContext};
use crate::model::layer_weights::LayerWeights;
use crate::model::loader::{BiasPresence, CheckpointLoader};
use crate::model::{Hooks, Module, RequiredRows};
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::Activation;
use espalier_tensor::{Buffer, Tape, Var};
use std::sync::Arc;

/// What a checkpoint calls the parts of a layer.
pub struct LayerTensorNames {
    /// What stands before a layer's number.
    pub layers_prefix: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub feed_forward_in: &'static str,
    pub feed_forward_out: &'static str,
    pub feed_forward_norm: &'static str,
}

pub struct LayerConfig {
    pub hidden_size: usize,
    /// Of the gelu network.
    pub intermediate_size: usize,
    pub heads: usize,
    pub mask: Option<Arc<AttentionMask>>,
}

pub struct Layer {
    pub weights: LayerWeights,
    attention: SelfAttention,
}

impl Layer {
    /// `head` is what the headed model calls the encoder.
    pub fn load(
        loader: &mut CheckpointLoader,
        index: usize,
        (tensor_names, base_model_prefix): (&LayerTensorNames, &str),
        config: &LayerConfig,
    ) -> Result<Self> {
        let LayerConfig { hidden_size: hidden, intermediate_size: wide, heads, .. } = *config;
        let mut weights = LayerWeights::new(index, tensor_names.layers_prefix, base_model_prefix);
        for (module, name) in [
            (Module::Query, tensor_names.query),
            (Module::Key, tensor_names.key),
            (Module::Value, tensor_names.value),
            (Module::AttentionOutput, tensor_names.attention_output),
        ] {
            weights.load_linear(loader, (module, name), [hidden, hidden], BiasPresence::Present)?;
        }
        weights.load_norm(
            loader,
            (Module::AttentionNorm, tensor_names.attention_norm),
            hidden,
            BiasPresence::Present,
        )?;
        weights.load_linear(
            loader,
            (Module::FeedForwardIn, tensor_names.feed_forward_in),
            [hidden, wide],
            BiasPresence::Present,
        )?;
        weights.load_linear(
            loader,
            (Module::FeedForwardOut, tensor_names.feed_forward_out),
            [wide, hidden],
            BiasPresence::Present,
        )?;
        weights.load_norm(
            loader,
            (Module::FeedForwardNorm, tensor_names.feed_forward_norm),
            hidden,
            BiasPresence::Present,
        )?;
        let attention = SelfAttention { heads, rotary: None, mask: config.mask.clone() };
        Ok(Self { weights, attention })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var> {
        let weights = &self.weights;
        let query_rows = required_rows.select(tape, input)?;
        let attention_output = self.forward_attention(tape, query_rows, input, hooks)?;
        let attention_output = self.apply_sublayer_hook(
            tape,
            hooks,
            (Sublayer::Attention, Module::AttentionNorm),
            query_rows,
            attention_output,
        )?;
        let residual = weights.forward_norm(tape, hooks, Module::AttentionNorm, attention_output, Some(query_rows))?;
        let intermediate = weights.forward_linear(tape, hooks, Module::FeedForwardIn, residual)?;
        let intermediate = tape.activate(Activation::Gelu, intermediate)?;
        let feed_forward_output = weights.forward_linear(tape, hooks, Module::FeedForwardOut, intermediate)?;
        let feed_forward_output = self.apply_sublayer_hook(
            tape,
            hooks,
            (Sublayer::FeedForward, Module::FeedForwardNorm),
            residual,
            feed_forward_output,
        )?;
        weights.forward_norm(tape, hooks, Module::FeedForwardNorm, feed_forward_output, Some(residual))
    }

    fn forward_attention(&self, tape: &mut Tape, query_rows: Var, input: Var, hooks: &dyn Hooks) -> Result<Var> {
        let query = self.weights.forward_linear(tape, hooks, Module::Query, query_rows)?;
        let key = self.weights.forward_linear(tape, hooks, Module::Key, input)?;
        let value = self.weights.forward_linear(tape, hooks, Module::Value, input)?;
        let attention_output = self.attention.forward(tape, hooks, self.weights.layer_index(), [query, key, value])?;
        self.weights.forward_linear(tape, hooks, Module::AttentionOutput, attention_output)
    }

    /// What an adapter makes of a sublayer's output, before the norm of its sum with the residual.
    fn apply_sublayer_hook(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        (sublayer, norm): (Sublayer, Module),
        residual: Var,
        output: Var,
    ) -> Result<Var> {
        let norm = self.weights.norm_at(norm).map(|norm| &norm.weighted);
        let context = SublayerContext { layer: self.weights.layer_index(), sublayer, residual, norm };
        hooked_ops::sublayer(tape, hooks, &context, output)
    }

    /// What is added to scores by distance, which all layers share.
    pub fn relative_position_bias(&self) -> Option<&Buffer> {
        self.attention.mask.as_ref()?.relative_position_bias.as_ref()
    }
}
