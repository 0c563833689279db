//! One pre-norm decoder layer: queries, keys and values from one map, causal attention, and a network of two maps.

use super::config::Config;
use crate::error::Result;
use crate::model::adapted;
use crate::model::attention::Attention;
use crate::model::hooks::Part;
use crate::model::loader::{Bias, Loader};
use crate::model::parts::Parts;
use crate::model::{Hooks, Module, Wanted};
use espalier_tensor::distance::Distance;
use espalier_tensor::kernels::Activation;
use espalier_tensor::{Rows, Tape};
use std::sync::Arc;

pub struct Layer {
    pub parts: Parts,
    hidden: usize,
    activation: Activation,
    attention: Attention,
}

impl Layer {
    pub fn load(loader: &mut Loader, index: usize, config: &Config) -> Result<Self> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let mut parts = Parts::new(index, "h", "transformer");
        for norm in [(Module::AttentionNorm, "ln_1"), (Module::FeedForwardNorm, "ln_2")] {
            parts.load_norm(loader, norm, hidden, Bias::Own)?;
        }
        for (map, shape) in [
            ((Module::QueryKeyValue, "attn.c_attn"), [hidden, 3 * hidden]),
            ((Module::AttentionOutput, "attn.c_proj"), [hidden, hidden]),
            ((Module::FeedForwardIn, "mlp.c_fc"), [hidden, wide]),
            ((Module::FeedForwardOut, "mlp.c_proj"), [wide, hidden]),
        ] {
            parts.load_map(loader, map, shape, Bias::Own)?;
        }
        let distance = Some(Arc::new(Distance::causal(None)));
        let attention = Attention { heads: config.heads, rotation: None, distance };
        Ok(Self { parts, hidden, activation: config.activation, attention })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let (parts, index) = (&self.parts, self.parts.layer());
        let normed = parts.normed(tape, hooks, Module::AttentionNorm, input, None)?;
        let fused = parts.linear(tape, hooks, Module::QueryKeyValue, normed)?;
        let part = |tape: &mut Tape, index: usize| tape.columns(fused, index * self.hidden..(index + 1) * self.hidden);
        let (query, key, value) = (part(tape, 0)?, part(tape, 1)?, part(tape, 2)?);
        let [query, input] = [wanted.of(tape, query)?, wanted.of(tape, input)?];
        let attended = self.attention.run(tape, hooks, index, [query, key, value])?;
        let attended = parts.linear(tape, hooks, Module::AttentionOutput, attended)?;
        let middle = adapted::added(tape, hooks, (index, Part::Attention), input, attended)?;
        let normed = parts.normed(tape, hooks, Module::FeedForwardNorm, middle, None)?;
        let wide = parts.linear(tape, hooks, Module::FeedForwardIn, normed)?;
        let wide = tape.activate(self.activation, wide)?;
        let narrow = parts.linear(tape, hooks, Module::FeedForwardOut, wide)?;
        adapted::added(tape, hooks, (index, Part::FeedForward), middle, narrow)
    }
}
