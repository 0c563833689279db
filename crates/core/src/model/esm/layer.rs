//! One pre-norm layer: what goes into attention and into the gelu network is normed, their outputs are added.

use crate::error::Result;
use crate::model::adapted;
use crate::model::attention::Attention;
use crate::model::hooks::Part;
use crate::model::loader::{Bias, Loader};
use crate::model::parts::Parts;
use crate::model::{Hooks, Module, Wanted};
use espalier_tensor::kernels::Activation;
use espalier_tensor::rotary::Rotation;
use espalier_tensor::{Rows, Tape};
use std::sync::Arc;

pub struct Layer {
    pub parts: Parts,
    attention: Attention,
}

impl Layer {
    /// `sizes` are the hidden width, that of the gelu network, and the number of heads.
    pub fn load(loader: &mut Loader, index: usize, sizes: [usize; 3], rotation: Arc<Rotation>) -> Result<Self> {
        let [hidden, wide, heads] = sizes;
        let mut parts = Parts::new(index, "encoder.layer", "esm");
        parts.load_norm(loader, (Module::AttentionNorm, "attention.LayerNorm"), hidden, Bias::Own)?;
        for map in [
            (Module::Query, "attention.self.query"),
            (Module::Key, "attention.self.key"),
            (Module::Value, "attention.self.value"),
            (Module::AttentionOutput, "attention.output.dense"),
        ] {
            parts.load_map(loader, map, [hidden, hidden], Bias::Own)?;
        }
        parts.load_norm(loader, (Module::FeedForwardNorm, "LayerNorm"), hidden, Bias::Own)?;
        parts.load_map(loader, (Module::FeedForwardIn, "intermediate.dense"), [hidden, wide], Bias::Own)?;
        parts.load_map(loader, (Module::FeedForwardOut, "output.dense"), [wide, hidden], Bias::Own)?;
        Ok(Self { parts, attention: Attention { heads, rotation: Some(rotation), distance: None } })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let (parts, index) = (&self.parts, self.parts.layer());
        let normed = parts.normed(tape, hooks, Module::AttentionNorm, input, None)?;
        let [asking, input] = [wanted.of(tape, normed)?, wanted.of(tape, input)?];
        let query = parts.linear(tape, hooks, Module::Query, asking)?;
        let key = parts.linear(tape, hooks, Module::Key, normed)?;
        let value = parts.linear(tape, hooks, Module::Value, normed)?;
        let attended = self.attention.run(tape, hooks, index, [query, key, value])?;
        let attended = parts.linear(tape, hooks, Module::AttentionOutput, attended)?;
        let middle = adapted::added(tape, hooks, (index, Part::Attention), input, attended)?;
        let normed = parts.normed(tape, hooks, Module::FeedForwardNorm, middle, None)?;
        let wide = parts.linear(tape, hooks, Module::FeedForwardIn, normed)?;
        let wide = tape.activate(Activation::Gelu, wide)?;
        let narrow = parts.linear(tape, hooks, Module::FeedForwardOut, wide)?;
        adapted::added(tape, hooks, (index, Part::FeedForward), middle, narrow)
    }
}
