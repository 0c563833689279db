//! One pre-norm layer: what goes into attention and into the gelu network is normed, their outputs are added.

use crate::compute::kernels::{Activation, FrozenLinear};
use crate::compute::rotary::Rotation;
use crate::compute::{Buffer, Rows, Tape};
use crate::error::Result;
use crate::model::adapted::{self, Norm};
use crate::model::attention::Attention;
use crate::model::hooks::Part;
use crate::model::loader::Loader;
use crate::model::{Hooks, Module, Site, SiteInfo, Wanted};
use std::sync::Arc;

pub struct Layer {
    index: usize,
    attention: Attention,
    attention_norm: Norm,
    query: Arc<FrozenLinear>,
    key: Arc<FrozenLinear>,
    value: Arc<FrozenLinear>,
    attention_output: Arc<FrozenLinear>,
    feed_forward_norm: Norm,
    feed_forward_in: Arc<FrozenLinear>,
    feed_forward_out: Arc<FrozenLinear>,
}

/// What a checkpoint calls a part of a layer.
fn name(module: Module) -> Option<&'static str> {
    Some(match module {
        Module::AttentionNorm => "attention.LayerNorm",
        Module::Query => "attention.self.query",
        Module::Key => "attention.self.key",
        Module::Value => "attention.self.value",
        Module::AttentionOutput => "attention.output.dense",
        Module::FeedForwardNorm => "LayerNorm",
        Module::FeedForwardIn => "intermediate.dense",
        Module::FeedForwardOut => "output.dense",
        _ => return None,
    })
}

impl Layer {
    /// `sizes` are the hidden width, that of the gelu network, and the number of heads.
    pub fn load(loader: &mut Loader, index: usize, sizes: [usize; 3], rotation: Arc<Rotation>) -> Result<Self> {
        let [hidden, wide, heads] = sizes;
        let name = |module| format!("encoder.layer.{index}.{}", name(module).unwrap_or_default());
        Ok(Self {
            index,
            attention: Attention { heads, rotation: Some(rotation), distance: None },
            attention_norm: loader.norm(&name(Module::AttentionNorm), hidden)?,
            query: loader.linear(&name(Module::Query), hidden, hidden)?,
            key: loader.linear(&name(Module::Key), hidden, hidden)?,
            value: loader.linear(&name(Module::Value), hidden, hidden)?,
            attention_output: loader.linear(&name(Module::AttentionOutput), hidden, hidden)?,
            feed_forward_norm: loader.norm(&name(Module::FeedForwardNorm), hidden)?,
            feed_forward_in: loader.linear(&name(Module::FeedForwardIn), hidden, wide)?,
            feed_forward_out: loader.linear(&name(Module::FeedForwardOut), wide, hidden)?,
        })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let normed = adapted::norm(tape, hooks, self.at(Module::AttentionNorm), &self.attention_norm, input, None)?;
        let [asking, input] = [wanted.of(tape, normed)?, wanted.of(tape, input)?];
        let query = adapted::linear(tape, hooks, self.at(Module::Query), &self.query, asking)?;
        let key = adapted::linear(tape, hooks, self.at(Module::Key), &self.key, normed)?;
        let value = adapted::linear(tape, hooks, self.at(Module::Value), &self.value, normed)?;
        let attended = self.attention.run(tape, hooks, self.index, [query, key, value])?;
        let attended =
            adapted::linear(tape, hooks, self.at(Module::AttentionOutput), &self.attention_output, attended)?;
        let middle = adapted::added(tape, hooks, (self.index, Part::Attention), input, attended)?;
        let normed =
            adapted::norm(tape, hooks, self.at(Module::FeedForwardNorm), &self.feed_forward_norm, middle, None)?;
        let wide = adapted::linear(tape, hooks, self.at(Module::FeedForwardIn), &self.feed_forward_in, normed)?;
        let wide = tape.activate(Activation::Gelu, wide)?;
        let narrow = adapted::linear(tape, hooks, self.at(Module::FeedForwardOut), &self.feed_forward_out, wide)?;
        adapted::added(tape, hooks, (self.index, Part::FeedForward), middle, narrow)
    }

    fn at(&self, module: Module) -> Site {
        Site { layer: Some(self.index), module }
    }

    /// In our order.
    pub fn sites(&self) -> impl Iterator<Item = SiteInfo> {
        Module::ALL.into_iter().filter_map(|module| {
            let path = format!("esm.encoder.layer.{}.{}", self.index, name(module)?);
            let site = self.at(module);
            match self.map(module) {
                Some(map) => Some(adapted::site(map, site, path)),
                None => Some(self.norm(module)?.site(site, &path)),
            }
        })
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let attention = [&self.query, &self.key, &self.value, &self.attention_output];
        let maps = attention.into_iter().chain([&self.feed_forward_in, &self.feed_forward_out]);
        let norms = [&self.attention_norm, &self.feed_forward_norm].into_iter();
        maps.flat_map(|map| map.buffers()).chain(norms.flat_map(|norm| norm.whole.buffers()))
    }

    pub fn map(&self, module: Module) -> Option<&Arc<FrozenLinear>> {
        Some(match module {
            Module::Query => &self.query,
            Module::Key => &self.key,
            Module::Value => &self.value,
            Module::AttentionOutput => &self.attention_output,
            Module::FeedForwardIn => &self.feed_forward_in,
            Module::FeedForwardOut => &self.feed_forward_out,
            _ => return None,
        })
    }

    pub fn norm(&self, module: Module) -> Option<&Norm> {
        match module {
            Module::AttentionNorm => Some(&self.attention_norm),
            Module::FeedForwardNorm => Some(&self.feed_forward_norm),
            _ => None,
        }
    }
}
