//! One layer (Vaswani et al. 2017): attention, then a gelu network, each normed together with its residual.

use crate::error::Result;
use crate::model::adapted;
use crate::model::attention::Attention;
use crate::model::hooks::{Part, Sublayer};
use crate::model::loader::{Bias, Loader};
use crate::model::parts::Parts;
use crate::model::{Hooks, Module, Wanted};
use espalier_tensor::distance::Distance;
use espalier_tensor::kernels::Activation;
use espalier_tensor::{Buffer, Rows, Tape};
use std::sync::Arc;

/// What a checkpoint calls the parts of a layer.
pub struct Names {
    /// What stands before a layer's number.
    pub layers: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub feed_forward_in: &'static str,
    pub feed_forward_out: &'static str,
    pub feed_forward_norm: &'static str,
}

pub struct Shape {
    pub hidden: usize,
    /// Of the gelu network.
    pub wide: usize,
    pub heads: usize,
    pub distance: Option<Arc<Distance>>,
}

pub struct Layer {
    pub parts: Parts,
    attention: Attention,
}

impl Layer {
    /// `head` is what the headed model calls the encoder.
    pub fn load(loader: &mut Loader, index: usize, (names, head): (&Names, &str), shape: &Shape) -> Result<Self> {
        let Shape { hidden, wide, heads, .. } = *shape;
        let mut parts = Parts::new(index, names.layers, head);
        for (module, name) in [
            (Module::Query, names.query),
            (Module::Key, names.key),
            (Module::Value, names.value),
            (Module::AttentionOutput, names.attention_output),
        ] {
            parts.load_map(loader, (module, name), [hidden, hidden], Bias::Own)?;
        }
        parts.load_norm(loader, (Module::AttentionNorm, names.attention_norm), hidden, Bias::Own)?;
        parts.load_map(loader, (Module::FeedForwardIn, names.feed_forward_in), [hidden, wide], Bias::Own)?;
        parts.load_map(loader, (Module::FeedForwardOut, names.feed_forward_out), [wide, hidden], Bias::Own)?;
        parts.load_norm(loader, (Module::FeedForwardNorm, names.feed_forward_norm), hidden, Bias::Own)?;
        let attention = Attention { heads, rotation: None, distance: shape.distance.clone() };
        Ok(Self { parts, attention })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let parts = &self.parts;
        let asking = wanted.of(tape, input)?;
        let attended = self.attend(tape, asking, input, hooks)?;
        let attended = self.sublayer(tape, hooks, (Part::Attention, Module::AttentionNorm), asking, attended)?;
        let middle = parts.normed(tape, hooks, Module::AttentionNorm, attended, Some(asking))?;
        let wide = parts.linear(tape, hooks, Module::FeedForwardIn, middle)?;
        let wide = tape.activate(Activation::Gelu, wide)?;
        let narrow = parts.linear(tape, hooks, Module::FeedForwardOut, wide)?;
        let narrow = self.sublayer(tape, hooks, (Part::FeedForward, Module::FeedForwardNorm), middle, narrow)?;
        parts.normed(tape, hooks, Module::FeedForwardNorm, narrow, Some(middle))
    }

    fn attend(&self, tape: &mut Tape, asking: Rows, input: Rows, hooks: &dyn Hooks) -> Result<Rows> {
        let query = self.parts.linear(tape, hooks, Module::Query, asking)?;
        let key = self.parts.linear(tape, hooks, Module::Key, input)?;
        let value = self.parts.linear(tape, hooks, Module::Value, input)?;
        let attended = self.attention.run(tape, hooks, self.parts.layer(), [query, key, value])?;
        self.parts.linear(tape, hooks, Module::AttentionOutput, attended)
    }

    /// What an adapter makes of a sublayer's output, before the norm of its sum with the residual.
    fn sublayer(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        (part, norm): (Part, Module),
        residual: Rows,
        output: Rows,
    ) -> Result<Rows> {
        let norm = self.parts.norm(norm).map(|norm| &norm.whole);
        let place = Sublayer { layer: self.parts.layer(), part, residual, norm };
        adapted::sublayer(tape, hooks, &place, output)
    }

    /// What is added to scores by distance, which all layers share.
    pub fn bias(&self) -> Option<&Buffer> {
        self.attention.distance.as_ref()?.bias.as_ref()
    }
}
