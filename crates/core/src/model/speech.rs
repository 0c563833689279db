//! What a checkpoint says of conversations and of where texts end. Knows nothing of what is generated.

use super::chat::{self, Template};
use super::gguf::Gguf;
use super::tokenizer::{Speech, Tokenizer};
use super::weights::read_json;
use crate::error::Result;
use serde_json::Value;
use std::path::Path;

/// Of a folder as transformers writes it: the tokenizer's own end comes first, and what `generation_config.json` and the
/// config name ends a text too.
pub fn of_folder(folder: &Path, config: &Value, tokenizer: &Tokenizer) -> Result<Speech> {
    let read = |name: &str| {
        let path = folder.join(name);
        if path.is_file() { read_json(&path) } else { Ok(Value::Null) }
    };
    let settings = read("tokenizer_config.json")?;
    let own = &settings["eos_token"];
    let own = own.as_str().or_else(|| own["content"].as_str()).and_then(|token| tokenizer.id(token));
    let ids = [&read("generation_config.json")?["eos_token_id"], &config["eos_token_id"]].map(listed);
    let stops = own.into_iter().chain(ids.into_iter().flatten());
    Ok(speech(chat::from_folder(folder), stops, tokenizer))
}

/// Of a GGUF file's metadata.
pub fn of_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Speech {
    let id = |key: &str| gguf.whole(key).and_then(|id| u32::try_from(id).ok());
    let token = |key: &str| id(key).and_then(|id| tokenizer.token(id));
    let template = chat::from_gguf(gguf.text("tokenizer.chat_template"), token);
    let stops = ["eos", "eot", "eom"].iter().filter_map(|name| id(&format!("tokenizer.ggml.{name}_token_id")));
    speech(template, stops, tokenizer)
}

/// One id, or several.
fn listed(ids: &Value) -> Vec<u32> {
    let all = ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice);
    all.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn speech(template: Result<Option<Template>>, ids: impl Iterator<Item = u32>, tokenizer: &Tokenizer) -> Speech {
    let mut stops: Vec<u32> = Vec::new();
    for id in ids.filter(|id| tokenizer.token(*id).is_some()) {
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    let template = match template {
        Ok(template) => template.map(Ok),
        Err(error) => {
            tracing::warn!(%error, "the base model's chat template cannot be used");
            Some(Err(error.to_string()))
        }
    };
    Speech { template, end: stops.first().copied(), stops }
}
