//! One pre-norm layer: queries, keys and values from one map, and a gated network whose two halves come from one.

use super::config::{Config, Reach};
use crate::compute::distance::Distance;
use crate::compute::kernels::{Activation, FrozenLinear};
use crate::compute::rotary::{self, Rotation};
use crate::compute::{Buffer, Kernels, Rows, Tape};
use crate::error::Result;
use crate::model::adapted::{self, Norm};
use crate::model::attention::Attention;
use crate::model::hooks::Part;
use crate::model::loader::{Bias, Loader};
use crate::model::{Hooks, Module, Site, SiteInfo, Wanted};
use std::sync::Arc;

pub struct Layer {
    index: usize,
    hidden: usize,
    attention: Attention,
    /// Not in the first layer: the embeddings are normed already.
    attention_norm: Option<Norm>,
    query_key_value: Arc<FrozenLinear>,
    attention_output: Arc<FrozenLinear>,
    feed_forward_norm: Norm,
    feed_forward_gate_in: Arc<FrozenLinear>,
    feed_forward_out: Arc<FrozenLinear>,
}

/// What a checkpoint calls a part of a layer.
fn name(module: Module) -> Option<&'static str> {
    Some(match module {
        Module::AttentionNorm => "attn_norm",
        Module::QueryKeyValue => "attn.Wqkv",
        Module::AttentionOutput => "attn.Wo",
        Module::FeedForwardNorm => "mlp_norm",
        Module::FeedForwardGateIn => "mlp.Wi",
        Module::FeedForwardOut => "mlp.Wo",
        _ => return None,
    })
}

/// What layers of either kind share.
pub struct Reaches {
    global: Arc<Rotation>,
    local: Arc<Rotation>,
    window: Arc<Distance>,
}

impl Reaches {
    pub fn new(kernels: &dyn Kernels, config: &Config) -> Result<Self> {
        let head_width = config.hidden_size / config.heads;
        let turned = |theta| {
            let frequencies = rotary::frequencies(theta, head_width);
            Rotation::new(kernels, config.max_position_embeddings, &frequencies, 1.0).map(Arc::new)
        };
        let window = Arc::new(Distance::window(config.window));
        Ok(Self { global: turned(config.global_theta)?, local: turned(config.local_theta)?, window })
    }

    fn attention(&self, heads: usize, reach: Reach) -> Attention {
        let (rotation, distance) = match reach {
            Reach::Global => (&self.global, None),
            Reach::Local => (&self.local, Some(Arc::clone(&self.window))),
        };
        Attention { heads, rotation: Some(Arc::clone(rotation)), distance }
    }
}

impl Layer {
    pub fn load(loader: &mut Loader, index: usize, config: &Config, reaches: &Reaches) -> Result<Self> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let [norm, attention, network] = [config.norm_bias, config.attention_bias, config.mlp_bias].map(Bias::of);
        let name = |module| format!("layers.{index}.{}", name(module).unwrap_or_default());
        let attention_norm = match index {
            0 => None,
            _ => Some(loader.norm_with(&name(Module::AttentionNorm), hidden, norm)?),
        };
        Ok(Self {
            index,
            hidden,
            attention: reaches.attention(config.heads, config.layers[index]),
            attention_norm,
            query_key_value: loader.linear_with(&name(Module::QueryKeyValue), hidden, 3 * hidden, attention)?,
            attention_output: loader.linear_with(&name(Module::AttentionOutput), hidden, hidden, attention)?,
            feed_forward_norm: loader.norm_with(&name(Module::FeedForwardNorm), hidden, norm)?,
            feed_forward_gate_in: loader.linear_with(&name(Module::FeedForwardGateIn), hidden, 2 * wide, network)?,
            feed_forward_out: loader.linear_with(&name(Module::FeedForwardOut), wide, hidden, network)?,
        })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let normed = match &self.attention_norm {
            Some(norm) => adapted::norm(tape, hooks, self.at(Module::AttentionNorm), norm, input, None)?,
            None => input,
        };
        let fused = adapted::linear(tape, hooks, self.at(Module::QueryKeyValue), &self.query_key_value, normed)?;
        let part = |tape: &mut Tape, index: usize| tape.columns(fused, index * self.hidden..(index + 1) * self.hidden);
        let (query, key, value) = (part(tape, 0)?, part(tape, 1)?, part(tape, 2)?);
        let [query, input] = [wanted.of(tape, query)?, wanted.of(tape, input)?];
        let attended = self.attention.run(tape, hooks, self.index, [query, key, value])?;
        let attended =
            adapted::linear(tape, hooks, self.at(Module::AttentionOutput), &self.attention_output, attended)?;
        let middle = adapted::added(tape, hooks, (self.index, Part::Attention), input, attended)?;
        let normed =
            adapted::norm(tape, hooks, self.at(Module::FeedForwardNorm), &self.feed_forward_norm, middle, None)?;
        let both = self.at(Module::FeedForwardGateIn);
        let both = adapted::linear(tape, hooks, both, &self.feed_forward_gate_in, normed)?;
        let wide = tape.gated(Activation::Gelu, both)?;
        let narrow = adapted::linear(tape, hooks, self.at(Module::FeedForwardOut), &self.feed_forward_out, wide)?;
        adapted::added(tape, hooks, (self.index, Part::FeedForward), middle, narrow)
    }

    fn at(&self, module: Module) -> Site {
        Site { layer: Some(self.index), module }
    }

    /// In our order.
    pub fn sites(&self) -> impl Iterator<Item = SiteInfo> {
        Module::ALL.into_iter().filter_map(|module| {
            let path = format!("model.layers.{}.{}", self.index, name(module)?);
            let site = self.at(module);
            match self.map(module) {
                Some(map) => Some(adapted::site(map, site, path)),
                None => Some(self.norm(module)?.site(site, &path)),
            }
        })
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let attention = [&self.query_key_value, &self.attention_output];
        let maps = attention.into_iter().chain([&self.feed_forward_gate_in, &self.feed_forward_out]);
        let norms = self.attention_norm.iter().chain([&self.feed_forward_norm]);
        maps.flat_map(|map| map.buffers()).chain(norms.flat_map(|norm| norm.whole.buffers()))
    }

    pub fn map(&self, module: Module) -> Option<&Arc<FrozenLinear>> {
        Some(match module {
            Module::QueryKeyValue => &self.query_key_value,
            Module::AttentionOutput => &self.attention_output,
            Module::FeedForwardGateIn => &self.feed_forward_gate_in,
            Module::FeedForwardOut => &self.feed_forward_out,
            _ => return None,
        })
    }

    pub fn norm(&self, module: Module) -> Option<&Norm> {
        match module {
            Module::AttentionNorm => self.attention_norm.as_ref(),
            Module::FeedForwardNorm => Some(&self.feed_forward_norm),
            _ => None,
        }
    }
}
