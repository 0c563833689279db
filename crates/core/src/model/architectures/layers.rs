//! The two forms of a transformer layer.
//!
//! Pre-norm layer (Xiong et al. 2020): norm, attention, residual; norm, feed-forward network, residual. ESM-2, GPT-2, ModernBERT and
//! the Llama family differ in which linear maps they fuse and gate.
//!
//! Post-norm encoder layer (Vaswani et al. 2017): attention and feed-forward network, each followed by a norm of the sum with its
//! residual. BERT, RoBERTa, DistilBERT and MPNet differ in tensor names and embeddings only.

use crate::error::Result;
use crate::model::attention::SelfAttention;
use crate::model::hooks::{self, Hooks, Sublayer, SublayerContext};
use crate::model::layer_weights::{LayerPart, LayerPrefix, LayerWeights};
use crate::model::loader::CheckpointLoader;
use crate::model::pooling::RequiredRows;
use crate::model::site::Module;
use crate::model::stack::Layer;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::{Activation, FrozenNorm};
use espalier_tensor::{Buffer, Tape, Var};
use std::sync::Arc;

/// The modules of `weights` decide the form of the layer: separate query, key and value projections or a fused one; a plain
/// feed-forward network, a gated one (Shazeer 2020), or a gated one with a fused input. Without an attention norm the input of
/// attention is not normed.
pub struct PreNormLayer {
    pub weights: LayerWeights,
    pub attention: SelfAttention,
    pub activation: Activation,
    /// Norms of each query head and each key head (Henry et al. 2020). Adapters cannot target them.
    pub qk_norms: Option<[Arc<FrozenNorm>; 2]>,
}

impl Layer for PreNormLayer {
    fn forward(&self, tape: &mut Tape, input: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var> {
        let layer = self.weights.layer_index();
        let normalized = match self.weights.norm_at(Module::AttentionNorm) {
            Some(_) => self.weights.forward_norm(tape, hooks, Module::AttentionNorm, input, None)?,
            None => input,
        };
        let [query, key, value] = self.project(tape, hooks, normalized, required_rows)?;
        let residual = required_rows.select(tape, input)?;
        let [query, key] = self.norm_heads(tape, [query, key])?;
        let attended = self.attention.forward(tape, hooks, layer, [query, key, value])?;
        let output = self.weights.forward_linear(tape, hooks, Module::AttentionOutput, attended)?;
        let hidden = hooks::add_residual(tape, hooks, (layer, Sublayer::Attention), residual, output)?;
        let normalized = self.weights.forward_norm(tape, hooks, Module::FeedForwardNorm, hidden, None)?;
        let intermediate = self.forward_intermediate(tape, hooks, normalized)?;
        let output = self.weights.forward_linear(tape, hooks, Module::FeedForwardOut, intermediate)?;
        hooks::add_residual(tape, hooks, (layer, Sublayer::FeedForward), hidden, output)
    }

    fn weights(&self) -> &LayerWeights {
        &self.weights
    }

    fn other_buffers(&self) -> Vec<&Buffer> {
        self.qk_norms.iter().flatten().flat_map(|norm| norm.buffers()).collect()
    }
}

impl PreNormLayer {
    /// Queries of the required rows, keys and values of all rows.
    fn project(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        normalized: Var,
        required_rows: RequiredRows,
    ) -> Result<[Var; 3]> {
        let weights = &self.weights;
        if weights.linear_at(Module::QueryKeyValue).is_none() {
            let query_rows = required_rows.select(tape, normalized)?;
            return Ok([
                weights.forward_linear(tape, hooks, Module::Query, query_rows)?,
                weights.forward_linear(tape, hooks, Module::Key, normalized)?,
                weights.forward_linear(tape, hooks, Module::Value, normalized)?,
            ]);
        }
        let qkv = weights.forward_linear(tape, hooks, Module::QueryKeyValue, normalized)?;
        let width = tape.width(qkv) / 3;
        let query = tape.slice_channels(qkv, 0..width)?;
        let key = tape.slice_channels(qkv, width..2 * width)?;
        let value = tape.slice_channels(qkv, 2 * width..3 * width)?;
        Ok([required_rows.select(tape, query)?, key, value])
    }

    fn norm_heads(&self, tape: &mut Tape, [query, key]: [Var; 2]) -> Result<[Var; 2]> {
        let Some([query_norm, key_norm]) = &self.qk_norms else { return Ok([query, key]) };
        let head_dim = tape.width(query) / self.attention.heads;
        let mut norm_heads = |rows: Var, norm: &Arc<FrozenNorm>| {
            let width = tape.width(rows);
            let heads = tape.reshape(rows, head_dim)?;
            let normalized = tape.norm(heads, None, norm)?;
            tape.reshape(normalized, width)
        };
        Ok([norm_heads(query, query_norm)?, norm_heads(key, key_norm)?])
    }

    /// Input of the down projection.
    fn forward_intermediate(&self, tape: &mut Tape, hooks: &dyn Hooks, normalized: Var) -> Result<Var> {
        let weights = &self.weights;
        if weights.linear_at(Module::FeedForwardGateIn).is_some() {
            let gate_and_up = weights.forward_linear(tape, hooks, Module::FeedForwardGateIn, normalized)?;
            return Ok(tape.glu(self.activation, gate_and_up)?);
        }
        if weights.linear_at(Module::FeedForwardGate).is_none() {
            let up = weights.forward_linear(tape, hooks, Module::FeedForwardIn, normalized)?;
            return Ok(tape.activate(self.activation, up)?);
        }
        let gate = weights.forward_linear(tape, hooks, Module::FeedForwardGate, normalized)?;
        let up = weights.forward_linear(tape, hooks, Module::FeedForwardIn, normalized)?;
        let gate = tape.activate(self.activation, gate)?;
        Ok(tape.mul(gate, up)?)
    }
}

/// Tensor names of a layer.
pub struct LayerTensorNames {
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub feed_forward_in: &'static str,
    pub feed_forward_out: &'static str,
    pub feed_forward_norm: &'static str,
}

/// Sizes of a post-norm layer and its attention mask.
pub struct PostNormConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub heads: usize,
    pub mask: Option<Arc<AttentionMask>>,
}

struct PostNormLayer {
    weights: LayerWeights,
    attention: SelfAttention,
}

/// Loads layers `0..layers`.
pub fn load_layers(
    loader: &mut CheckpointLoader,
    prefix: LayerPrefix,
    names: &LayerTensorNames,
    config: &PostNormConfig,
    layers: usize,
) -> Result<Vec<Box<dyn Layer>>> {
    let PostNormConfig { hidden_size: hidden, intermediate_size: intermediate, heads, .. } = *config;
    let mut load = |index: usize| {
        let parts = [
            LayerPart::linear(Module::Query, names.query, [hidden, hidden]),
            LayerPart::linear(Module::Key, names.key, [hidden, hidden]),
            LayerPart::linear(Module::Value, names.value, [hidden, hidden]),
            LayerPart::linear(Module::AttentionOutput, names.attention_output, [hidden, hidden]),
            LayerPart::norm(Module::AttentionNorm, names.attention_norm, hidden),
            LayerPart::linear(Module::FeedForwardIn, names.feed_forward_in, [hidden, intermediate]),
            LayerPart::linear(Module::FeedForwardOut, names.feed_forward_out, [intermediate, hidden]),
            LayerPart::norm(Module::FeedForwardNorm, names.feed_forward_norm, hidden),
        ];
        let weights = LayerWeights::load(loader, prefix, index, &parts)?;
        let attention = SelfAttention { heads, rotary: None, mask: config.mask.clone() };
        Ok(Box::new(PostNormLayer { weights, attention }) as Box<dyn Layer>)
    };
    (0..layers).map(&mut load).collect()
}

impl Layer for PostNormLayer {
    fn forward(&self, tape: &mut Tape, input: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var> {
        let weights = &self.weights;
        let query_rows = required_rows.select(tape, input)?;
        let query = weights.forward_linear(tape, hooks, Module::Query, query_rows)?;
        let key = weights.forward_linear(tape, hooks, Module::Key, input)?;
        let value = weights.forward_linear(tape, hooks, Module::Value, input)?;
        let attended = self.attention.forward(tape, hooks, weights.layer_index(), [query, key, value])?;
        let output = weights.forward_linear(tape, hooks, Module::AttentionOutput, attended)?;
        let attention = (Sublayer::Attention, Module::AttentionNorm);
        let hidden = self.add_and_norm(tape, hooks, attention, query_rows, output)?;
        let intermediate = weights.forward_linear(tape, hooks, Module::FeedForwardIn, hidden)?;
        let intermediate = tape.activate(Activation::Gelu, intermediate)?;
        let output = weights.forward_linear(tape, hooks, Module::FeedForwardOut, intermediate)?;
        self.add_and_norm(tape, hooks, (Sublayer::FeedForward, Module::FeedForwardNorm), hidden, output)
    }

    fn weights(&self) -> &LayerWeights {
        &self.weights
    }

    /// The relative position bias, which all layers share.
    fn other_buffers(&self) -> Vec<&Buffer> {
        let mask = self.attention.mask.as_ref();
        mask.and_then(|mask| mask.relative_position_bias.as_ref()).into_iter().collect()
    }
}

impl PostNormLayer {
    /// Applies the sublayer hook, adds the residual and norms the sum.
    fn add_and_norm(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        (sublayer, module): (Sublayer, Module),
        residual: Var,
        output: Var,
    ) -> Result<Var> {
        let norm = self.weights.norm_at(module).map(|norm| &norm.weighted);
        let context = SublayerContext { layer: self.weights.layer_index(), sublayer, residual, norm };
        let output = hooks::apply_sublayer_hook(tape, hooks, &context, output)?;
        self.weights.forward_norm(tape, hooks, module, output, Some(residual))
    }
}
