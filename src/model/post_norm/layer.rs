//! One layer (Vaswani et al. 2017): attention, then a gelu network, each normed together with its residual.

use crate::compute::distance::Distance;
use crate::compute::kernels::{Activation, FrozenLinear};
use crate::compute::{Buffer, Rows, Tape};
use crate::error::Result;
use crate::model::adapted::{self, Norm};
use crate::model::attention::Attention;
use crate::model::hooks::{Part, Sublayer};
use crate::model::loader::Loader;
use crate::model::{Hooks, Module, Site, SiteInfo, Wanted};
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

impl Names {
    /// `None` for what belongs to no layer.
    fn of(&self, module: Module) -> Option<&'static str> {
        Some(match module {
            Module::Query => self.query,
            Module::Key => self.key,
            Module::Value => self.value,
            Module::AttentionOutput => self.attention_output,
            Module::AttentionNorm => self.attention_norm,
            Module::FeedForwardIn => self.feed_forward_in,
            Module::FeedForwardOut => self.feed_forward_out,
            Module::FeedForwardNorm => self.feed_forward_norm,
            _ => return None,
        })
    }
}

pub struct Shape {
    pub hidden: usize,
    /// Of the gelu network.
    pub wide: usize,
    pub heads: usize,
    pub distance: Option<Arc<Distance>>,
}

pub struct Layer {
    index: usize,
    attention: Attention,
    query: Arc<FrozenLinear>,
    key: Arc<FrozenLinear>,
    value: Arc<FrozenLinear>,
    attention_output: Arc<FrozenLinear>,
    attention_norm: Norm,
    feed_forward_in: Arc<FrozenLinear>,
    feed_forward_out: Arc<FrozenLinear>,
    feed_forward_norm: Norm,
}

impl Layer {
    pub fn load(loader: &mut Loader, index: usize, names: &Names, shape: &Shape) -> Result<Self> {
        let Shape { hidden, wide, heads, .. } = *shape;
        let name = |part: &str| format!("{}.{index}.{part}", names.layers);
        Ok(Self {
            index,
            attention: Attention { heads, rotation: None, distance: shape.distance.clone() },
            query: loader.linear(&name(names.query), hidden, hidden)?,
            key: loader.linear(&name(names.key), hidden, hidden)?,
            value: loader.linear(&name(names.value), hidden, hidden)?,
            attention_output: loader.linear(&name(names.attention_output), hidden, hidden)?,
            attention_norm: loader.norm(&name(names.attention_norm), hidden)?,
            feed_forward_in: loader.linear(&name(names.feed_forward_in), hidden, wide)?,
            feed_forward_out: loader.linear(&name(names.feed_forward_out), wide, hidden)?,
            feed_forward_norm: loader.norm(&name(names.feed_forward_norm), hidden)?,
        })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let asking = wanted.of(tape, input)?;
        let attended = self.attend(tape, asking, input, hooks)?;
        let norm = &self.attention_norm;
        let place = Sublayer { layer: self.index, part: Part::Attention, residual: asking, norm: Some(&norm.whole) };
        let attended = adapted::sublayer(tape, hooks, &place, attended)?;
        let middle = adapted::norm(tape, hooks, self.at(Module::AttentionNorm), norm, attended, Some(asking))?;
        let wide = adapted::linear(tape, hooks, self.at(Module::FeedForwardIn), &self.feed_forward_in, middle)?;
        let wide = tape.activate(Activation::Gelu, wide)?;
        let narrow = adapted::linear(tape, hooks, self.at(Module::FeedForwardOut), &self.feed_forward_out, wide)?;
        let norm = &self.feed_forward_norm;
        let place = Sublayer { layer: self.index, part: Part::FeedForward, residual: middle, norm: Some(&norm.whole) };
        let narrow = adapted::sublayer(tape, hooks, &place, narrow)?;
        adapted::norm(tape, hooks, self.at(Module::FeedForwardNorm), norm, narrow, Some(middle))
    }

    fn attend(&self, tape: &mut Tape, asking: Rows, input: Rows, hooks: &dyn Hooks) -> Result<Rows> {
        let query = adapted::linear(tape, hooks, self.at(Module::Query), &self.query, asking)?;
        let key = adapted::linear(tape, hooks, self.at(Module::Key), &self.key, input)?;
        let value = adapted::linear(tape, hooks, self.at(Module::Value), &self.value, input)?;
        let attended = self.attention.run(tape, hooks, self.index, [query, key, value])?;
        adapted::linear(tape, hooks, self.at(Module::AttentionOutput), &self.attention_output, attended)
    }

    fn at(&self, module: Module) -> Site {
        Site { layer: Some(self.index), module }
    }

    /// In our order.
    pub fn sites<'a>(&'a self, head: &'a str, names: &'a Names) -> impl Iterator<Item = SiteInfo> + 'a {
        Module::ALL.into_iter().filter_map(move |module| {
            let path = format!("{head}.{}.{}.{}", names.layers, self.index, names.of(module)?);
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

    /// What is added to scores by distance, which all layers share.
    pub fn bias(&self) -> Option<&Buffer> {
        self.attention.distance.as_ref()?.bias.as_ref()
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
