//! A GGUF file's facts as transformers' `config.json` would say them.

use super::Gguf;
use crate::error::Result;
use serde_json::{Value, json};

/// Architectures whose names are transformers' `model_type`s. Mistral's files call themselves llama.
const KNOWN: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// # Errors
/// `Invalid` naming the field that is missing, or not computed.
pub fn read(gguf: &Gguf) -> Result<Value> {
    let architecture = gguf.architecture()?;
    if !KNOWN.contains(&architecture) {
        let known = KNOWN.join(", ");
        return gguf.unsupported(&format!("general.architecture \"{architecture}\" (known are {known})"));
    }
    // Llama 3.1's angles are in a tensor of their own, and nothing says what they were made with.
    if gguf.content.tensor_infos.contains_key("rope_freqs.weight") {
        return gguf.unsupported("the tensor rope_freqs.weight");
    }
    let name = |field: &str| format!("{architecture}.{field}");
    let whole = |field: &str| gguf.needed(&name(field), gguf.whole(&name(field)));
    let heads = whole("attention.head_count")?;
    let words = gguf.field("tokenizer.ggml.tokens").and_then(|field| field.to_vec().ok()).map(|all| all.len() as u64);
    let vocabulary = gguf.whole(&name("vocab_size")).or(words);
    let has = |tensor: &str| gguf.content.tensor_infos.contains_key(tensor);
    let head_width = ["attention.key_length", "rope.dimension_count"].into_iter().find_map(|f| gguf.whole(&name(f)));
    Ok(json!({
        "model_type": architecture,
        "hidden_size": whole("embedding_length")?,
        "num_hidden_layers": whole("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.whole(&name("attention.head_count_kv")).unwrap_or(heads),
        "head_dim": head_width,
        "intermediate_size": whole("feed_forward_length")?,
        "vocab_size": gguf.needed(&name("vocab_size"), vocabulary)?,
        "max_position_embeddings": whole("context_length")?,
        "rms_norm_eps": gguf.needed(
            &name("attention.layer_norm_rms_epsilon"),
            gguf.number(&name("attention.layer_norm_rms_epsilon")),
        )?,
        "rope_theta": gguf.number(&name("rope.freq_base")).unwrap_or(10_000.0),
        "rope_scaling": scaling(gguf, &name("rope.scaling"))?,
        "attention_bias": has("blk.0.attn_q.bias"),
        "tie_word_embeddings": !has("output.weight"),
        "mlp_bias": has("blk.0.ffn_up.bias"),
    }))
}

/// How positions are stretched.
fn scaling(gguf: &Gguf, field: &str) -> Result<Value> {
    let rope_type = gguf.text(&format!("{field}.type")).unwrap_or("none");
    let factor = gguf.number(&format!("{field}.factor"));
    match rope_type {
        "none" => Ok(Value::Null),
        "linear" | "yarn" => Ok(json!({
            "rope_type": rope_type,
            "factor": factor,
            "original_max_position_embeddings": gguf.whole(&format!("{field}.original_context_length")),
        })),
        other => gguf.unsupported(&format!("{field}.type \"{other}\"")),
    }
}
