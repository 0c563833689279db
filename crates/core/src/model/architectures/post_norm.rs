//! Post-norm encoder layer (Vaswani et al. 2017): attention and feed-forward network, each followed by a norm of the sum with its
//! residual. BERT, RoBERTa, DistilBERT and MPNet differ in tensor names and embeddings only.

use crate::error::Result;
use crate::model::attention::SelfAttention;
use crate::model::hooked_ops;
use crate::model::hooks::{Hooks, Sublayer, SublayerContext};
use crate::model::layer_weights::{LayerPart, LayerPrefix, LayerWeights};
use crate::model::loader::CheckpointLoader;
use crate::model::pooling::RequiredRows;
use crate::model::site::Module;
use crate::model::stack::Layer;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::Activation;
use espalier_tensor::{Buffer, Tape, Var};
use std::sync::Arc;

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

pub struct LayerConfig {
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
    config: &LayerConfig,
    layers: usize,
) -> Result<Vec<Box<dyn Layer>>> {
    let LayerConfig { hidden_size: hidden, intermediate_size: intermediate, heads, .. } = *config;
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
        let output = hooked_ops::sublayer(tape, hooks, &context, output)?;
        self.weights.forward_norm(tape, hooks, module, output, Some(residual))
    }
}
