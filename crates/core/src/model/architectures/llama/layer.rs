//! One pre-norm decoder layer: causal attention, in which heads of queries may share keys and values (Ainslie et al. 2023),
//! and a gated network (Shazeer 2020).

use super::config::{AttentionKind, Config};
use crate::error::Result;
use crate::model::attention::SelfAttention;
use crate::model::hooked_ops;
use crate::model::hooks::Sublayer;
use crate::model::layer_weights::LayerWeights;
use crate::model::loader::{BiasPresence, CheckpointLoader};
use crate::model::{Hooks, Module, RequiredRows};
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::{Activation, FrozenNorm};
use espalier_tensor::rotary::RotaryTable;
use espalier_tensor::{Backend, Buffer, Tape, Var};
use std::sync::Arc;

pub struct Layer {
    pub weights: LayerWeights,
    attention: SelfAttention,
    /// Of each head of queries, and of keys: no adapter touches them.
    qk_norms: Option<[Arc<FrozenNorm>; 2]>,
    head_dim: usize,
}

/// What layers of either kind share.
pub struct AttentionVariants {
    rotary: Arc<RotaryTable>,
    global_mask: Arc<AttentionMask>,
    sliding_mask: Arc<AttentionMask>,
}

impl AttentionVariants {
    pub fn new(backend: &dyn Backend, config: &Config) -> Result<Self> {
        let rotation = config.rope.rotary_table(backend, config.max_tokens(), config.head_dim)?;
        // A window counts the row itself.
        let left_window = config.sliding_window.map(|window| window - 1);
        Ok(Self {
            rotary: Arc::new(rotation),
            global_mask: Arc::new(AttentionMask::causal(None)),
            sliding_mask: Arc::new(AttentionMask::causal(left_window)),
        })
    }

    fn attention(&self, heads: usize, kind: AttentionKind) -> SelfAttention {
        let distance = match kind {
            AttentionKind::Global => &self.global_mask,
            AttentionKind::Sliding => &self.sliding_mask,
        };
        SelfAttention { heads, rotary: Some(Arc::clone(&self.rotary)), mask: Some(Arc::clone(distance)) }
    }
}

impl Layer {
    pub fn load(
        loader: &mut CheckpointLoader,
        index: usize,
        config: &Config,
        variants: &AttentionVariants,
    ) -> Result<Self> {
        let (hidden, intermediate, head_width) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (query_width, kv_width) = (config.heads * head_width, config.kv_heads * head_width);
        let biases = [config.qkv_bias, config.output_bias, config.mlp_bias];
        let [qkv_bias, output_bias, mlp_bias] = biases.map(BiasPresence::from_flag);
        let mut weights = LayerWeights::new(index, "layers", "model");
        let norms = [(Module::AttentionNorm, "input_layernorm"), (Module::FeedForwardNorm, "post_attention_layernorm")];
        for norm in norms {
            weights.load_norm(loader, norm, hidden, BiasPresence::Absent)?;
        }
        for (map, shape, bias) in [
            ((Module::Query, "self_attn.q_proj"), [hidden, query_width], qkv_bias),
            ((Module::Key, "self_attn.k_proj"), [hidden, kv_width], qkv_bias),
            ((Module::Value, "self_attn.v_proj"), [hidden, kv_width], qkv_bias),
            ((Module::AttentionOutput, "self_attn.o_proj"), [query_width, hidden], output_bias),
            ((Module::FeedForwardGate, "mlp.gate_proj"), [hidden, intermediate], mlp_bias),
            ((Module::FeedForwardIn, "mlp.up_proj"), [hidden, intermediate], mlp_bias),
            ((Module::FeedForwardOut, "mlp.down_proj"), [intermediate, hidden], mlp_bias),
        ] {
            weights.load_linear(loader, map, shape, bias)?;
        }
        let mut load_head_norm = |which: &str| {
            let name = format!("layers.{index}.self_attn.{which}");
            loader.frozen_norm(&name, head_width, BiasPresence::Absent)
        };
        let head_norms = match config.has_qk_norm {
            true => Some([load_head_norm("q_norm")?, load_head_norm("k_norm")?]),
            false => None,
        };
        let attention = variants.attention(config.heads, config.attention_kinds[index]);
        Ok(Self { weights, attention, qk_norms: head_norms, head_dim: head_width })
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    pub fn forward(&self, tape: &mut Tape, input: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var> {
        let (weights, index) = (&self.weights, self.weights.layer_index());
        let normalized = weights.forward_norm(tape, hooks, Module::AttentionNorm, input, None)?;
        let [query_rows, input] = [required_rows.select(tape, normalized)?, required_rows.select(tape, input)?];
        let query = weights.forward_linear(tape, hooks, Module::Query, query_rows)?;
        let key = weights.forward_linear(tape, hooks, Module::Key, normalized)?;
        let value = weights.forward_linear(tape, hooks, Module::Value, normalized)?;
        let [query, key] = match &self.qk_norms {
            None => [query, key],
            Some([of_query, of_key]) => {
                [self.norm_by_head(tape, query, of_query)?, self.norm_by_head(tape, key, of_key)?]
            }
        };
        let attention_output = self.attention.forward(tape, hooks, index, [query, key, value])?;
        let attention_output = weights.forward_linear(tape, hooks, Module::AttentionOutput, attention_output)?;
        let residual = hooked_ops::add_residual(tape, hooks, (index, Sublayer::Attention), input, attention_output)?;
        let normalized = weights.forward_norm(tape, hooks, Module::FeedForwardNorm, residual, None)?;
        let gate = weights.forward_linear(tape, hooks, Module::FeedForwardGate, normalized)?;
        let intermediate = weights.forward_linear(tape, hooks, Module::FeedForwardIn, normalized)?;
        let gate = tape.activate(Activation::Silu, gate)?;
        let intermediate = tape.mul(gate, intermediate)?;
        let feed_forward_output = weights.forward_linear(tape, hooks, Module::FeedForwardOut, intermediate)?;
        hooked_ops::add_residual(tape, hooks, (index, Sublayer::FeedForward), residual, feed_forward_output)
    }

    /// Every head normed by itself.
    fn norm_by_head(&self, tape: &mut Tape, rows: Var, norm: &Arc<FrozenNorm>) -> Result<Var> {
        let width = tape.width(rows);
        let heads = tape.reshape(rows, self.head_dim)?;
        let normalized = tape.norm(heads, None, norm)?;
        Ok(tape.reshape(normalized, width)?)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let norms = self.qk_norms.iter().flatten().flat_map(|norm| norm.buffers());
        self.weights.buffers().chain(norms)
    }
}
