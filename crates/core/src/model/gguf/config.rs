//! A GGUF file's facts as transformers' `config.json` would say them.

use super::{Gguf, tensors};
use crate::error::Result;
use serde_json::{Value, json};

/// Architectures whose names are transformers' `model_type`s. Mistral's files call themselves llama.
const KNOWN: [&str; 4] = ["llama", "qwen2", "qwen3", "gpt2"];

/// What the angles of Llama 3.1 and later are divided by, one number for each pair that turns.
const FACTORS: &str = "rope_freqs.weight";

/// # Errors
/// `Invalid` naming the field that is missing, or not computed.
pub fn read(gguf: &Gguf) -> Result<Value> {
    match gguf.architecture()? {
        "gpt2" => gpt2(gguf),
        architecture if KNOWN.contains(&architecture) => llama(gguf, architecture),
        other => {
            let known = KNOWN.join(", ");
            gguf.unsupported(&format!("general.architecture \"{other}\" (known are {known})"))
        }
    }
}

/// Of the Llama family.
fn llama(gguf: &Gguf, architecture: &str) -> Result<Value> {
    let name = |field: &str| format!("{architecture}.{field}");
    let whole = |field: &str| gguf.needed(&name(field), gguf.whole(&name(field)));
    let heads = whole("attention.head_count")?;
    let head_width = ["attention.key_length", "rope.dimension_count"].into_iter().find_map(|f| gguf.whole(&name(f)));
    Ok(json!({
        "model_type": architecture,
        "hidden_size": whole("embedding_length")?,
        "num_hidden_layers": whole("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.whole(&name("attention.head_count_kv")).unwrap_or(heads),
        "head_dim": head_width,
        "intermediate_size": whole("feed_forward_length")?,
        "vocab_size": vocabulary(gguf, architecture)?,
        "max_position_embeddings": whole("context_length")?,
        "rms_norm_eps": epsilon(gguf, &name("attention.layer_norm_rms_epsilon"))?,
        "rope_theta": gguf.number(&name("rope.freq_base")).unwrap_or(10_000.0),
        "rope_scaling": scaling(gguf, &name("rope.scaling"))?,
        "attention_bias": gguf.has("blk.0.attn_q.bias"),
        "tie_word_embeddings": !gguf.has("output.weight"),
        "mlp_bias": gguf.has("blk.0.ffn_up.bias"),
    }))
}

fn gpt2(gguf: &Gguf) -> Result<Value> {
    let name = |field: &str| format!("gpt2.{field}");
    let whole = |field: &str| gguf.needed(&name(field), gguf.whole(&name(field)));
    Ok(json!({
        "model_type": "gpt2",
        "n_embd": whole("embedding_length")?,
        "n_layer": whole("block_count")?,
        "n_head": whole("attention.head_count")?,
        "n_inner": whole("feed_forward_length")?,
        "n_positions": whole("context_length")?,
        "vocab_size": vocabulary(gguf, "gpt2")?,
        "layer_norm_epsilon": epsilon(gguf, &name("attention.layer_norm_epsilon"))?,
        "tie_word_embeddings": !gguf.has("output.weight"),
        "map_order": "output_input",
    }))
}

fn vocabulary(gguf: &Gguf, architecture: &str) -> Result<u64> {
    let field = format!("{architecture}.vocab_size");
    let words = gguf.field("tokenizer.ggml.tokens").and_then(|field| field.to_vec().ok()).map(|all| all.len() as u64);
    gguf.needed(&field, gguf.whole(&field).or(words))
}

fn epsilon(gguf: &Gguf, field: &str) -> Result<f64> {
    gguf.needed(field, gguf.number(field))
}

/// How positions are stretched.
fn scaling(gguf: &Gguf, field: &str) -> Result<Value> {
    let rope_type = gguf.text(&format!("{field}.type")).unwrap_or("none");
    let factor = gguf.number(&format!("{field}.factor"));
    match (rope_type, gguf.has(FACTORS)) {
        ("none", false) => Ok(Value::Null),
        ("none", true) => Ok(json!({"rope_type": "factors", "factors": tensors::numbers(gguf, FACTORS)?})),
        ("linear" | "yarn", false) => Ok(json!({
            "rope_type": rope_type,
            "factor": factor,
            "original_max_position_embeddings": gguf.whole(&format!("{field}.original_context_length")),
        })),
        (other, true) => gguf.unsupported(&format!("{field}.type \"{other}\" beside the tensor {FACTORS}")),
        (other, false) => gguf.unsupported(&format!("{field}.type \"{other}\"")),
    }
}
