//! `config.json` of transformers from the metadata of a GGUF file.

use super::file::GgufFile;
use super::tensors;
use crate::error::Result;
use serde_json::{Value, json};

/// Supported architectures, each named like its `model_type`. Files of Mistral models have the architecture `llama`.
const SUPPORTED_ARCHITECTURES: [&str; 4] = ["llama", "qwen2", "qwen3", "gpt2"];

/// Divisors of the rotary frequencies of Llama 3.1 and later, one for each rotated pair.
const ROPE_FREQS_TENSOR: &str = "rope_freqs.weight";

/// Builds a `config.json`.
///
/// # Errors
/// `Invalid` with the key that is missing or has an unsupported value.
pub fn read_hf_config(gguf: &GgufFile) -> Result<Value> {
    match gguf.architecture()? {
        "gpt2" => gpt2_config(gguf),
        architecture if SUPPORTED_ARCHITECTURES.contains(&architecture) => llama_config(gguf, architecture),
        other => {
            let supported = SUPPORTED_ARCHITECTURES.join(", ");
            gguf.unsupported(&format!("general.architecture \"{other}\" (known are {supported})"))
        }
    }
}

fn llama_config(gguf: &GgufFile, architecture: &str) -> Result<Value> {
    let key = |field: &str| format!("{architecture}.{field}");
    let require_u64 = |field: &str| gguf.require(&key(field), gguf.u64_value(&key(field)));
    let heads = require_u64("attention.head_count")?;
    let head_dim = ["attention.key_length", "rope.dimension_count"].into_iter().find_map(|f| gguf.u64_value(&key(f)));
    Ok(json!({
        "model_type": architecture,
        "hidden_size": require_u64("embedding_length")?,
        "num_hidden_layers": require_u64("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.u64_value(&key("attention.head_count_kv")).unwrap_or(heads),
        "head_dim": head_dim,
        "intermediate_size": require_u64("feed_forward_length")?,
        "vocab_size": vocab_size(gguf, architecture)?,
        "max_position_embeddings": require_u64("context_length")?,
        "rms_norm_eps": norm_epsilon(gguf, &key("attention.layer_norm_rms_epsilon"))?,
        "rope_theta": gguf.f64_value(&key("rope.freq_base")).unwrap_or(10_000.0),
        "rope_scaling": rope_scaling(gguf, &key("rope.scaling"))?,
        "attention_bias": gguf.has_tensor("blk.0.attn_q.bias"),
        "tie_word_embeddings": !gguf.has_tensor("output.weight"),
        "mlp_bias": gguf.has_tensor("blk.0.ffn_up.bias"),
    }))
}

fn gpt2_config(gguf: &GgufFile) -> Result<Value> {
    let key = |field: &str| format!("gpt2.{field}");
    let require_u64 = |field: &str| gguf.require(&key(field), gguf.u64_value(&key(field)));
    Ok(json!({
        "model_type": "gpt2",
        "n_embd": require_u64("embedding_length")?,
        "n_layer": require_u64("block_count")?,
        "n_head": require_u64("attention.head_count")?,
        "n_inner": require_u64("feed_forward_length")?,
        "n_positions": require_u64("context_length")?,
        "vocab_size": vocab_size(gguf, "gpt2")?,
        "layer_norm_epsilon": norm_epsilon(gguf, &key("attention.layer_norm_epsilon"))?,
        "tie_word_embeddings": !gguf.has_tensor("output.weight"),
        "map_order": "output_input",
    }))
}

fn vocab_size(gguf: &GgufFile, architecture: &str) -> Result<u64> {
    let key = format!("{architecture}.vocab_size");
    let token_count =
        gguf.metadata_value("tokenizer.ggml.tokens").and_then(|field| field.to_vec().ok()).map(|all| all.len() as u64);
    gguf.require(&key, gguf.u64_value(&key).or(token_count))
}

fn norm_epsilon(gguf: &GgufFile, key: &str) -> Result<f64> {
    gguf.require(key, gguf.f64_value(key))
}

/// `rope_scaling` of transformers.
fn rope_scaling(gguf: &GgufFile, key_prefix: &str) -> Result<Value> {
    let rope_type = gguf.str_value(&format!("{key_prefix}.type")).unwrap_or("none");
    let factor = gguf.f64_value(&format!("{key_prefix}.factor"));
    match (rope_type, gguf.has_tensor(ROPE_FREQS_TENSOR)) {
        ("none", false) => Ok(Value::Null),
        ("none", true) => {
            Ok(json!({"rope_type": "factors", "factors": tensors::read_f32_tensor(gguf, ROPE_FREQS_TENSOR)?}))
        }
        ("linear" | "yarn", false) => Ok(json!({
            "rope_type": rope_type,
            "factor": factor,
            "original_max_position_embeddings": gguf.u64_value(&format!("{key_prefix}.original_context_length")),
        })),
        (other, true) => {
            gguf.unsupported(&format!("{key_prefix}.type \"{other}\" beside the tensor {ROPE_FREQS_TENSOR}"))
        }
        (other, false) => gguf.unsupported(&format!("{key_prefix}.type \"{other}\"")),
    }
}
