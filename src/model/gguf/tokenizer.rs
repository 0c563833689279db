//! A GGUF file's tokenizer as a `tokenizer.json`: byte-level BPE (Sennrich et al. 2016; Radford et al. 2019), with the splitting
//! that the file names.

use super::{Gguf, whole};
use crate::error::Result;
use crate::model::weights::damaged;
use candle_core::quantized::gguf_file::Value as Field;
use serde_json::{Value, json};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `tokenizer.ggml.token_type` of a control token, and of one that users defined.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// # Errors
/// `Invalid` naming what is missing, or not known.
pub fn read(gguf: &Gguf) -> Result<Value> {
    let kind = gguf.needed("tokenizer.ggml.model", gguf.text("tokenizer.ggml.model"))?;
    if kind != "gpt2" {
        return gguf.unsupported(&format!("tokenizer.ggml.model \"{kind}\" (known is gpt2, byte-level BPE)"));
    }
    let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
    let merges = texts(gguf, "tokenizer.ggml.merges")?;
    let splitting = splitting(gguf)?;
    let vocabulary: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_string(), json!(id))).collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added(gguf, &tokens),
        "normalizer": splitting.normalizer,
        "pre_tokenizer": splitting.pre_tokenizer,
        "post_processor": special(gguf, &tokens)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": merges,
            "ignore_merges": splitting.ignores_merges,
        },
    }))
}

fn texts<'a>(gguf: &'a Gguf, name: &str) -> Result<Vec<&'a str>> {
    let all = gguf.needed(name, gguf.field(name).and_then(|field| field.to_vec().ok()))?;
    let text = |field: &'a Field| match field {
        Field::String(text) => Ok(text.as_str()),
        _ => Err(damaged(&gguf.path, &format!("{name} has something that is no text"))),
    };
    all.iter().map(text).collect()
}

/// How a text is cut before its bytes are merged.
struct Splitting {
    normalizer: Value,
    pre_tokenizer: Value,
    /// Whether a word of the vocabulary is taken whole, whatever its merges.
    ignores_merges: bool,
}

fn splitting(gguf: &Gguf) -> Result<Splitting> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let after = |first: Value, use_regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(use_regex)]});
    let by = |regex: &str| {
        after(json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}), false)
    };
    let plain = |pre_tokenizer: Value| Splitting { normalizer: Value::Null, pre_tokenizer, ignores_merges: false };
    Ok(match gguf.text("tokenizer.ggml.pre").unwrap_or("default") {
        "gpt-2" | "default" => plain(bytes(true)),
        "smollm" => plain(after(json!({"type": "Digits", "individual_digits": true}), true)),
        "llama-bpe" | "llama3" | "llama-v3" => Splitting { ignores_merges: true, ..plain(by(LLAMA3)) },
        "qwen2" => Splitting { normalizer: json!({"type": "NFC"}), ..plain(by(QWEN2)) },
        other => {
            return gguf
                .unsupported(&format!("tokenizer.ggml.pre \"{other}\" (known are smollm, llama-bpe, qwen2, gpt-2)"));
        }
    })
}

/// Tokens that a text has whole.
fn added(gguf: &Gguf, tokens: &[&str]) -> Vec<Value> {
    let types = gguf.field("tokenizer.ggml.token_type").and_then(|field| field.to_vec().ok());
    let kinds = types.into_iter().flatten().map(|kind| whole(kind).unwrap_or_default());
    let is_whole = |kind: &u64| matches!(*kind, CONTROL | USER_DEFINED);
    let one = |(id, (token, kind)): (usize, (&&str, u64))| {
        json!({
            "id": id, "content": token, "special": kind == CONTROL,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    tokens.iter().zip(kinds).enumerate().filter(|(_, (_, kind))| is_whole(kind)).map(one).collect()
}

/// What is put before and behind a text.
fn special(gguf: &Gguf, tokens: &[&str]) -> Result<Value> {
    let one = |switch: &str, id: &str| {
        let (switch, id) = (format!("tokenizer.ggml.{switch}"), format!("tokenizer.ggml.{id}"));
        if !gguf.is_on(&switch) {
            return Ok(None);
        }
        let found = gguf.needed(&id, gguf.whole(&id))? as usize;
        let token = gguf.needed(&format!("the token that {id} names"), tokens.get(found))?;
        Ok::<_, crate::error::Error>(Some((*token, found)))
    };
    let (first, last) = (one("add_bos_token", "bos_token_id")?, one("add_eos_token", "eos_token_id")?);
    if first.is_none() && last.is_none() {
        return Ok(Value::Null);
    }
    let named =
        |token: &Option<(&str, usize)>| token.map(|(token, _)| json!({"SpecialToken": {"id": token, "type_id": 0}}));
    let text = |part: &str| Some(json!({"Sequence": {"id": part, "type_id": 0}}));
    let all = |parts: Vec<Option<Value>>| parts.into_iter().flatten().collect::<Vec<Value>>();
    let whole = |part: &str| [named(&first), text(part), named(&last)];
    let tokens: serde_json::Map<String, Value> = [&first, &last]
        .into_iter()
        .flatten()
        .map(|(token, id)| ((*token).to_string(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": all(whole("A").to_vec()),
        "pair": all([whole("A"), whole("B")].concat()),
        "special_tokens": tokens,
    }))
}
