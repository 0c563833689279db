//! One pre-norm layer: what goes into attention and into the gelu network is normed, their outputs are added.

use crate::error::Result;
use crate::model::attention::SelfAttention;
use crate::model::hooked_ops;
use crate::model::hooks::Sublayer;
use crate::model::layer_weights::LayerWeights;
use crate::model::loader::{BiasPresence, CheckpointLoader};
use crate::model::{Hooks, Module, RequiredRows};
use espalier_tensor::backend::Activation;
use espalier_tensor::rotary::RotaryTable;
use espalier_tensor::{Tape, Var};
use std::sync::Arc;

pub struct Layer {
    pub weights: LayerWeights,
    attention: SelfAttention,
}

impl Layer {
    /// `sizes` are the hidden width, that of the gelu network, and the number of heads.
    pub fn load(
        loader: &mut CheckpointLoader,
        index: usize,
        sizes: [usize; 3],
        rotary: Arc<RotaryTable>,
    ) -> Result<Self> {
        let [hidden, intermediate, heads] = sizes;
        let mut weights = LayerWeights::new(index, "encoder.layer", "esm");
        weights.load_norm(loader, (Module::AttentionNorm, "attention.LayerNorm"), hidden, BiasPresence::Present)?;
        for map in [
            (Module::Query, "attention.self.query"),
            (Module::Key, "attention.self.key"),
            (Module::Value, "attention.self.value"),
            (Module::AttentionOutput, "attention.output.dense"),
        ] {
            weights.load_linear(loader, map, [hidden, hidden], BiasPresence::Present)?;
        }
        weights.load_norm(loader, (Module::FeedForwardNorm, "LayerNorm"), hidden, BiasPresence::Present)?;
        weights.load_linear(
            loader,
            (Module::FeedForwardIn, "intermediate.dense"),
            [hidden, intermediate],
            BiasPresence::Present,
        )?;
        weights.load_linear(
            loader,
            (Module::FeedForwardOut, "output.dense"),
            [intermediate, hidden],
            BiasPresence::Present,
        )?;
        Ok(Self { weights, attention: SelfAttention { heads, rotary: Some(rotary), mask: None } })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var> {
        let (weights, index) = (&self.weights, self.weights.layer_index());
        let normalized = weights.forward_norm(tape, hooks, Module::AttentionNorm, input, None)?;
        let [query_rows, input] = [required_rows.select(tape, normalized)?, required_rows.select(tape, input)?];
        let query = weights.forward_linear(tape, hooks, Module::Query, query_rows)?;
        let key = weights.forward_linear(tape, hooks, Module::Key, normalized)?;
        let value = weights.forward_linear(tape, hooks, Module::Value, normalized)?;
        let attention_output = self.attention.forward(tape, hooks, index, [query, key, value])?;
        let attention_output = weights.forward_linear(tape, hooks, Module::AttentionOutput, attention_output)?;
        let residual = hooked_ops::add_residual(tape, hooks, (index, Sublayer::Attention), input, attention_output)?;
        let normalized = weights.forward_norm(tape, hooks, Module::FeedForwardNorm, residual, None)?;
        let intermediate = weights.forward_linear(tape, hooks, Module::FeedForwardIn, normalized)?;
        let intermediate = tape.activate(Activation::Gelu, intermediate)?;
        let feed_forward_output = weights.forward_linear(tape, hooks, Module::FeedForwardOut, intermediate)?;
        hooked_ops::add_residual(tape, hooks, (index, Sublayer::FeedForward), residual, feed_forward_output)
    }
}
