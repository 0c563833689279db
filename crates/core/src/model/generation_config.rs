//! What a checkpoint says of conversations and of where texts end. Knows nothing of what is generated.

use super::chat::{self, ChatTemplate};
use super::gguf::GgufFile;
use super::weights::read_json;
use crate::error::Result;
use serde_json::Value;
use std::path::Path;
use tokenizers::Tokenizer;

/// What a checkpoint says of conversations, and of where a text ends.
#[derive(Default)]
pub struct GenerationConfig {
    /// The chat template, or why it cannot be used.
    pub chat_template: Option<std::result::Result<ChatTemplate, String>>,
    /// What ends a text that is learned.
    pub eos: Option<u32>,
    /// Tokens behind which nothing is generated.
    pub eos_ids: Vec<u32>,
}

/// Of a folder as transformers writes it: the tokenizer's own end comes first, and what `generation_config.json` and the
/// config name ends a text too.
pub fn from_folder(folder: &Path, config: &Value, tokenizer: &Tokenizer) -> Result<GenerationConfig> {
    let read_optional_json = |name: &str| {
        let path = folder.join(name);
        if path.is_file() { read_json(&path) } else { Ok(Value::Null) }
    };
    let tokenizer_config = read_optional_json("tokenizer_config.json")?;
    let eos_token = &tokenizer_config["eos_token"];
    let eos_token_id =
        eos_token.as_str().or_else(|| eos_token["content"].as_str()).and_then(|token| tokenizer.token_to_id(token));
    let eos_token_ids =
        [&read_optional_json("generation_config.json")?["eos_token_id"], &config["eos_token_id"]].map(token_id_list);
    let eos_ids = eos_token_id.into_iter().chain(eos_token_ids.into_iter().flatten());
    Ok(build_generation_config(chat::from_folder(folder), eos_ids, tokenizer))
}

/// Of a GGUF file's metadata.
pub fn from_gguf(gguf: &GgufFile, tokenizer: &Tokenizer) -> GenerationConfig {
    let token_id = |key: &str| gguf.u64_value(key).and_then(|id| u32::try_from(id).ok());
    let token_text = |key: &str| token_id(key).and_then(|id| tokenizer.id_to_token(id));
    let template = chat::from_gguf(gguf.str_value("tokenizer.chat_template"), token_text);
    let eos_ids = ["eos", "eot", "eom"].iter().filter_map(|name| token_id(&format!("tokenizer.ggml.{name}_token_id")));
    build_generation_config(template, eos_ids, tokenizer)
}

/// One id, or several.
fn token_id_list(value: &Value) -> Vec<u32> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    items.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn build_generation_config(
    template: Result<Option<ChatTemplate>>,
    eos_candidates: impl Iterator<Item = u32>,
    tokenizer: &Tokenizer,
) -> GenerationConfig {
    let mut eos_ids: Vec<u32> = Vec::new();
    for id in eos_candidates.filter(|id| tokenizer.id_to_token(*id).is_some()) {
        if !eos_ids.contains(&id) {
            eos_ids.push(id);
        }
    }
    let template = match template {
        Ok(template) => template.map(Ok),
        Err(error) => {
            tracing::warn!(%error, "the base model's chat template cannot be used");
            Some(Err(error.to_string()))
        }
    };
    GenerationConfig { chat_template: template, eos: eos_ids.first().copied(), eos_ids }
}
