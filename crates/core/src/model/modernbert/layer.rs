//! One pre-norm layer: queries, keys and values from one map, and a gated network whose two halves come from one.

use super::config::{Config, Reach};
use crate::error::Result;
use crate::model::adapted;
use crate::model::attention::Attention;
use crate::model::hooks::Part;
use crate::model::loader::{Bias, Loader};
use crate::model::parts::Parts;
use crate::model::{Hooks, Module, Wanted};
use espalier_tensor::distance::Distance;
use espalier_tensor::kernels::Activation;
use espalier_tensor::rotary::{self, Rotation};
use espalier_tensor::{Kernels, Rows, Tape};
use std::sync::Arc;

pub struct Layer {
    pub parts: Parts,
    hidden: usize,
    attention: Attention,
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
        let mut parts = Parts::new(index, "layers", "model");
        // Not in the first layer: the embeddings are normed already.
        if index > 0 {
            parts.load_norm(loader, (Module::AttentionNorm, "attn_norm"), hidden, norm)?;
        }
        parts.load_map(loader, (Module::QueryKeyValue, "attn.Wqkv"), [hidden, 3 * hidden], attention)?;
        parts.load_map(loader, (Module::AttentionOutput, "attn.Wo"), [hidden, hidden], attention)?;
        parts.load_norm(loader, (Module::FeedForwardNorm, "mlp_norm"), hidden, norm)?;
        parts.load_map(loader, (Module::FeedForwardGateIn, "mlp.Wi"), [hidden, 2 * wide], network)?;
        parts.load_map(loader, (Module::FeedForwardOut, "mlp.Wo"), [wide, hidden], network)?;
        Ok(Self { parts, hidden, attention: reaches.attention(config.heads, config.layers[index]) })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let (parts, index) = (&self.parts, self.parts.layer());
        let normed = match parts.norm(Module::AttentionNorm) {
            Some(_) => parts.normed(tape, hooks, Module::AttentionNorm, input, None)?,
            None => input,
        };
        let fused = parts.linear(tape, hooks, Module::QueryKeyValue, normed)?;
        let part = |tape: &mut Tape, index: usize| tape.columns(fused, index * self.hidden..(index + 1) * self.hidden);
        let (query, key, value) = (part(tape, 0)?, part(tape, 1)?, part(tape, 2)?);
        let [query, input] = [wanted.of(tape, query)?, wanted.of(tape, input)?];
        let attended = self.attention.run(tape, hooks, index, [query, key, value])?;
        let attended = parts.linear(tape, hooks, Module::AttentionOutput, attended)?;
        let middle = adapted::added(tape, hooks, (index, Part::Attention), input, attended)?;
        let normed = parts.normed(tape, hooks, Module::FeedForwardNorm, middle, None)?;
        let both = parts.linear(tape, hooks, Module::FeedForwardGateIn, normed)?;
        let wide = tape.gated(Activation::Gelu, both)?;
        let narrow = parts.linear(tape, hooks, Module::FeedForwardOut, wide)?;
        adapted::added(tape, hooks, (index, Part::FeedForward), middle, narrow)
    }
}
