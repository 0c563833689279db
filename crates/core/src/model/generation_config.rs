//! Generation settings of a checkpoint: chat template and end-of-text tokens.

use super::chat::{self, ChatTemplate, TemplateSources};
use super::checkpoint_files::read_optional_json;
use super::gguf::GgufFile;
use crate::error::Result;
use serde_json::Value;
use std::path::Path;
use tokenizers::Tokenizer;

/// Chat template and end-of-text tokens of a base model.
#[derive(Default)]
pub struct GenerationConfig {
    /// The chat template, or the reason why it cannot be used.
    pub chat_template: Option<std::result::Result<ChatTemplate, String>>,
    /// End-of-text token that is appended to training examples.
    pub eos: Option<u32>,
    /// Tokens that end generation.
    pub eos_ids: Vec<u32>,
}

/// Reads a folder of transformers. The first end-of-text token is that of the tokenizer, then come those of
/// `generation_config.json` and `config.json`.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) if a JSON file cannot be read.
pub fn from_folder(folder: &Path, config: &Value, vocabulary: &Tokenizer) -> Result<GenerationConfig> {
    let tokenizer_config = read_optional_json(&folder.join("tokenizer_config.json"))?;
    let generation_config = read_optional_json(&folder.join("generation_config.json"))?;
    let tokenizer_eos =
        chat::token_text(&tokenizer_config["eos_token"]).and_then(|token| vocabulary.token_to_id(token));
    let other_eos = [&generation_config["eos_token_id"], &config["eos_token_id"]].map(token_id_list);
    let eos_ids = tokenizer_eos.into_iter().chain(other_eos.into_iter().flatten());
    Ok(build_generation_config(chat::from_folder(folder), eos_ids, vocabulary))
}

/// Reads the metadata of a GGUF file.
pub fn from_gguf(gguf: &GgufFile, vocabulary: &Tokenizer) -> GenerationConfig {
    let token_id = |key: &str| gguf.u64_value(key).and_then(|id| u32::try_from(id).ok());
    let token_text = |key: &str| token_id(key).and_then(|id| vocabulary.id_to_token(id));
    let sources = TemplateSources {
        default: gguf.str_value("tokenizer.chat_template"),
        tool_use: gguf.str_value("tokenizer.chat_template.tool_use"),
    };
    let template = chat::from_gguf(sources, token_text);
    let eos_ids = ["eos", "eot", "eom"].iter().filter_map(|name| token_id(&format!("tokenizer.ggml.{name}_token_id")));
    build_generation_config(template, eos_ids, vocabulary)
}

/// Parses a token id or a list of them.
fn token_id_list(value: &Value) -> Vec<u32> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    items.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn build_generation_config(
    template: Result<Option<ChatTemplate>>,
    eos_candidates: impl Iterator<Item = u32>,
    vocabulary: &Tokenizer,
) -> GenerationConfig {
    let mut eos_ids: Vec<u32> = Vec::new();
    for id in eos_candidates.filter(|id| vocabulary.id_to_token(*id).is_some()) {
        if !eos_ids.contains(&id) {
            eos_ids.push(id);
        }
    }
    let chat_template = template.map_err(|error| error.to_string()).transpose();
    if let Some(Err(error)) = &chat_template {
        tracing::warn!(%error, "the base model's chat template cannot be used");
    }
    GenerationConfig { chat_template, eos: eos_ids.first().copied(), eos_ids }
}
