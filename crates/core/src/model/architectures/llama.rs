//! The Llama family (Touvron et al. 2023): Llama 2 and 3, SmolLM, Mistral, Qwen 2 and 3. Pre-norm decoders with rotary positions,
//! gated linear units and grouped-query attention (Ainslie et al. 2023).

mod config;
mod rope;

use super::layers::PreNormLayer;
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::attention::SelfAttention;
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks::{self, AttentionKind};
use crate::model::embeddings::Embeddings;
use crate::model::layer_weights::{LayerPart, LayerPrefix, LayerWeights};
use crate::model::lm_head::LmHeadTensorNames;
use crate::model::loader::{self, BiasPresence, CheckpointLoader, WeightLayout};
use crate::model::site::Module;
use crate::model::stack::{FinalNorm, KvHeads, Layer, ModelDimensions, Stack};
use crate::model::weights::CheckpointTensors;
use config::{Config, RawConfig};
use espalier_tensor::Backend;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::Activation;
use espalier_tensor::rotary::RotaryTable;
use serde_json::Value;
use std::sync::Arc;

pub const LLAMA: ArchitectureEntry = ArchitectureEntry {
    model_type: "llama",
    classification_head: ClassificationHeadSpec::DECODER,
    lm_head: LM_HEAD,
    word_embeddings_path: "model.embed_tokens",
    weight_layout: WeightLayout::OutputInput,
    canonical_name: |name| loader::strip_model_prefix(name, "model.", &["embed_tokens.", "layers.", "norm."]),
    load,
};

pub const MISTRAL: ArchitectureEntry = ArchitectureEntry { model_type: "mistral", ..LLAMA };

pub const QWEN2: ArchitectureEntry = ArchitectureEntry { model_type: "qwen2", ..LLAMA };

pub const QWEN3: ArchitectureEntry = ArchitectureEntry { model_type: "qwen3", ..LLAMA };

/// Tensor names of a decoder's head, also of GPT-2.
pub const LM_HEAD: LmHeadTensorNames = LmHeadTensorNames { transform: None, bias: &[], decoder: "lm_head.weight" };

const BASE_MODEL_PREFIX: &str = "model";

fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config = config_checks::parse_config::<RawConfig>(config)?.resolve()?;
    let variants = AttentionVariants::new(backend, &config)?;
    let mut loader = CheckpointLoader::new(weights, backend, config.rms_norm_eps).with_rms_norm();
    let embeddings = Embeddings::words(loader.embedding("embed_tokens", config.vocab_size, config.hidden_size)?);
    let layers = (0..config.attention_kinds.len())
        .map(|index| load_layer(&mut loader, index, &config, &variants))
        .collect::<Result<_>>()?;
    let final_norm = FinalNorm {
        norm: loader.norm("norm", config.hidden_size, BiasPresence::Absent)?,
        module_path: "model.norm".to_string(),
    };
    let dimensions = ModelDimensions {
        hidden_size: config.hidden_size,
        attention_heads: config.heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_tokens(),
    };
    let decoder = Some(KvHeads { kv_heads: config.kv_heads, head_dim: config.head_dim });
    let stack = Stack { dimensions, embeddings, layers, final_norm: Some(final_norm), pooler: None, decoder };
    LoadedArchitecture::new(stack, &config)
}

/// Rotary table and masks that the layers share.
struct AttentionVariants {
    rotary: Arc<RotaryTable>,
    global_mask: Arc<AttentionMask>,
    sliding_mask: Arc<AttentionMask>,
}

impl AttentionVariants {
    fn new(backend: &dyn Backend, config: &Config) -> Result<Self> {
        let rotary = config.rope.rotary_table(backend, config.max_tokens(), config.head_dim)?;
        // The window includes the row itself.
        let left_window = config.sliding_window.map(|window| window - 1);
        Ok(Self {
            rotary: Arc::new(rotary),
            global_mask: Arc::new(AttentionMask::causal(None)),
            sliding_mask: Arc::new(AttentionMask::causal(left_window)),
        })
    }

    fn attention(&self, heads: usize, kind: AttentionKind) -> SelfAttention {
        let mask = match kind {
            AttentionKind::Global => &self.global_mask,
            AttentionKind::Sliding => &self.sliding_mask,
        };
        SelfAttention { heads, rotary: Some(Arc::clone(&self.rotary)), mask: Some(Arc::clone(mask)) }
    }
}

fn load_layer(
    loader: &mut CheckpointLoader,
    index: usize,
    config: &Config,
    variants: &AttentionVariants,
) -> Result<Box<dyn Layer>> {
    let (hidden, intermediate, head_dim) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (query_width, kv_width) = (config.heads * head_dim, config.kv_heads * head_dim);
    let biases = [config.qkv_bias, config.output_bias, config.mlp_bias];
    let [qkv_bias, output_bias, mlp_bias] = biases.map(BiasPresence::from_flag);
    let no_bias = BiasPresence::Absent;
    let parts = [
        LayerPart::Norm(Module::AttentionNorm, "input_layernorm", hidden, no_bias),
        LayerPart::Norm(Module::FeedForwardNorm, "post_attention_layernorm", hidden, no_bias),
        LayerPart::Linear(Module::Query, "self_attn.q_proj", [hidden, query_width], qkv_bias),
        LayerPart::Linear(Module::Key, "self_attn.k_proj", [hidden, kv_width], qkv_bias),
        LayerPart::Linear(Module::Value, "self_attn.v_proj", [hidden, kv_width], qkv_bias),
        LayerPart::Linear(Module::AttentionOutput, "self_attn.o_proj", [query_width, hidden], output_bias),
        LayerPart::Linear(Module::FeedForwardGate, "mlp.gate_proj", [hidden, intermediate], mlp_bias),
        LayerPart::Linear(Module::FeedForwardIn, "mlp.up_proj", [hidden, intermediate], mlp_bias),
        LayerPart::Linear(Module::FeedForwardOut, "mlp.down_proj", [intermediate, hidden], mlp_bias),
    ];
    let prefix = LayerPrefix { base_model: BASE_MODEL_PREFIX, layers: "layers" };
    let weights = LayerWeights::load(loader, prefix, index, &parts)?;
    let mut head_norm = |name: &str| loader.frozen_norm(&prefix.tensor_name(index, name), head_dim, no_bias);
    let qk_norms = match config.has_qk_norm {
        true => Some([head_norm("self_attn.q_norm")?, head_norm("self_attn.k_norm")?]),
        false => None,
    };
    let attention = variants.attention(config.heads, config.attention_kinds[index]);
    Ok(Box::new(PreNormLayer { weights, attention, activation: Activation::Silu, qk_norms }))
}
