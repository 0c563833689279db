//! One pre-norm decoder layer: causal attention, in which heads of queries may share keys and values (Ainslie et al. 2023),
//! and a gated network (Shazeer 2020).

use super::config::{Config, Reach};
use crate::error::Result;
use crate::model::adapted;
use crate::model::attention::Attention;
use crate::model::hooks::Part;
use crate::model::loader::{Bias, Loader};
use crate::model::parts::Parts;
use crate::model::{Hooks, Module, Wanted};
use espalier_tensor::distance::Distance;
use espalier_tensor::kernels::{Activation, FrozenNorm};
use espalier_tensor::rotary::Rotation;
use espalier_tensor::{Buffer, Kernels, Rows, Tape};
use std::sync::Arc;

pub struct Layer {
    pub parts: Parts,
    attention: Attention,
    /// Of each head of queries, and of keys: no adapter touches them.
    head_norms: Option<[Arc<FrozenNorm>; 2]>,
    head_width: usize,
}

/// What layers of either kind share.
pub struct Reaches {
    rotation: Arc<Rotation>,
    all: Arc<Distance>,
    sliding: Arc<Distance>,
}

impl Reaches {
    pub fn new(kernels: &dyn Kernels, config: &Config) -> Result<Self> {
        let rotation = config.rope.rotation(kernels, config.max_tokens(), config.head_width)?;
        // A window counts the row itself.
        let behind = config.window.map(|window| window - 1);
        Ok(Self {
            rotation: Arc::new(rotation),
            all: Arc::new(Distance::causal(None)),
            sliding: Arc::new(Distance::causal(behind)),
        })
    }

    fn attention(&self, heads: usize, reach: Reach) -> Attention {
        let distance = match reach {
            Reach::All => &self.all,
            Reach::Sliding => &self.sliding,
        };
        Attention { heads, rotation: Some(Arc::clone(&self.rotation)), distance: Some(Arc::clone(distance)) }
    }
}

impl Layer {
    pub fn load(loader: &mut Loader, index: usize, config: &Config, reaches: &Reaches) -> Result<Self> {
        let (hidden, wide, head_width) = (config.hidden_size, config.intermediate_size, config.head_width);
        let (queries, keys) = (config.heads * head_width, config.key_heads * head_width);
        let biases = [config.projection_bias, config.output_bias, config.mlp_bias];
        let [projection, output, network] = biases.map(Bias::of);
        let mut parts = Parts::new(index, "layers", "model");
        let norms = [(Module::AttentionNorm, "input_layernorm"), (Module::FeedForwardNorm, "post_attention_layernorm")];
        for norm in norms {
            parts.load_norm(loader, norm, hidden, Bias::Nothing)?;
        }
        for (map, shape, bias) in [
            ((Module::Query, "self_attn.q_proj"), [hidden, queries], projection),
            ((Module::Key, "self_attn.k_proj"), [hidden, keys], projection),
            ((Module::Value, "self_attn.v_proj"), [hidden, keys], projection),
            ((Module::AttentionOutput, "self_attn.o_proj"), [queries, hidden], output),
            ((Module::FeedForwardGate, "mlp.gate_proj"), [hidden, wide], network),
            ((Module::FeedForwardIn, "mlp.up_proj"), [hidden, wide], network),
            ((Module::FeedForwardOut, "mlp.down_proj"), [wide, hidden], network),
        ] {
            parts.load_map(loader, map, shape, bias)?;
        }
        let mut norm = |which: &str| {
            let name = format!("layers.{index}.self_attn.{which}");
            loader.plain_norm(&name, head_width, Bias::Nothing)
        };
        let head_norms = match config.head_norms {
            true => Some([norm("q_norm")?, norm("k_norm")?]),
            false => None,
        };
        let attention = reaches.attention(config.heads, config.layers[index]);
        Ok(Self { parts, attention, head_norms, head_width })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Rows, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let (parts, index) = (&self.parts, self.parts.layer());
        let normed = parts.normed(tape, hooks, Module::AttentionNorm, input, None)?;
        let [asking, input] = [wanted.of(tape, normed)?, wanted.of(tape, input)?];
        let query = parts.linear(tape, hooks, Module::Query, asking)?;
        let key = parts.linear(tape, hooks, Module::Key, normed)?;
        let value = parts.linear(tape, hooks, Module::Value, normed)?;
        let [query, key] = match &self.head_norms {
            None => [query, key],
            Some([of_query, of_key]) => [self.by_head(tape, query, of_query)?, self.by_head(tape, key, of_key)?],
        };
        let attended = self.attention.run(tape, hooks, index, [query, key, value])?;
        let attended = parts.linear(tape, hooks, Module::AttentionOutput, attended)?;
        let middle = adapted::added(tape, hooks, (index, Part::Attention), input, attended)?;
        let normed = parts.normed(tape, hooks, Module::FeedForwardNorm, middle, None)?;
        let gate = parts.linear(tape, hooks, Module::FeedForwardGate, normed)?;
        let wide = parts.linear(tape, hooks, Module::FeedForwardIn, normed)?;
        let gate = tape.activate(Activation::Silu, gate)?;
        let wide = tape.multiply(gate, wide)?;
        let narrow = parts.linear(tape, hooks, Module::FeedForwardOut, wide)?;
        adapted::added(tape, hooks, (index, Part::FeedForward), middle, narrow)
    }

    /// Every head normed by itself.
    fn by_head(&self, tape: &mut Tape, rows: Rows, norm: &Arc<FrozenNorm>) -> Result<Rows> {
        let width = tape.width(rows);
        let heads = tape.fold(rows, self.head_width)?;
        let normed = tape.norm(heads, None, norm)?;
        Ok(tape.fold(normed, width)?)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let norms = self.head_norms.iter().flatten().flat_map(|norm| norm.buffers());
        self.parts.buffers().chain(norms)
    }
}
