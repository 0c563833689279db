//! Loads the chat template and special tokens from the files of transformers or the metadata of a GGUF file.

use super::template::ChatTemplate;
use crate::error::Result;
use crate::model::checkpoint_files::{read_optional_json, read_optional_text};
use serde_json::Value;
use std::path::Path;

/// Variable names of special tokens in templates, and their keys in a GGUF file (one is misspelt in the format).
const SPECIAL_TOKEN_NAMES: [(&str, &str); 7] = [
    ("bos_token", "bos_token"),
    ("eos_token", "eos_token"),
    ("unk_token", "unknown_token"),
    ("sep_token", "seperator_token"),
    ("pad_token", "padding_token"),
    ("cls_token", "cls_token"),
    ("mask_token", "mask_token"),
];

/// Loads the template of a folder; `None` if it has none.
///
/// # Errors
/// `Invalid`: `base_model_damaged` if a file cannot be read, `bad_chat_template` if the template does not parse.
pub fn from_folder(folder: &Path) -> Result<Option<ChatTemplate>> {
    let config = read_optional_json(&folder.join("tokenizer_config.json"))?;
    let special_tokens_map = read_optional_json(&folder.join("special_tokens_map.json"))?;
    let template_file = read_optional_text(&folder.join("chat_template.jinja"))?;
    from_config(&config, &special_tokens_map, template_file.as_deref())
}

/// Loads the template from the contents of `tokenizer_config.json`, `special_tokens_map.json` (for special tokens that the first
/// does not have) and `chat_template.jinja` (which overrides the template of the first).
///
/// # Errors
/// `Invalid` (`bad_chat_template`) if the template does not parse.
pub fn from_config(
    config: &Value,
    special_tokens_map: &Value,
    template_file: Option<&str>,
) -> Result<Option<ChatTemplate>> {
    let Some(source) = template_file.or_else(|| default_template(&config["chat_template"])) else { return Ok(None) };
    let token_named = |name: &str| token_text(&config[name]).or_else(|| token_text(&special_tokens_map[name]));
    let special_tokens =
        SPECIAL_TOKEN_NAMES.iter().filter_map(|(name, _)| Some(((*name).to_string(), token_named(name)?.to_string())));
    ChatTemplate::new(source, special_tokens.collect()).map(Some)
}

/// Loads the template of a GGUF file, `tokenizer.chat_template`. `token_for_key` returns the token whose id is under a key such as
/// `tokenizer.ggml.bos_token_id`.
///
/// # Errors
/// `Invalid` (`bad_chat_template`) if the template does not parse.
pub fn from_gguf(source: Option<&str>, token_for_key: impl Fn(&str) -> Option<String>) -> Result<Option<ChatTemplate>> {
    let to_named_token =
        |(name, key): &(&str, &str)| Some(((*name).to_string(), token_for_key(&format!("tokenizer.ggml.{key}_id"))?));
    let special_tokens = || SPECIAL_TOKEN_NAMES.iter().filter_map(to_named_token).collect();
    source.map(|source| ChatTemplate::new(source, special_tokens())).transpose()
}

/// The template, or the one named "default" in a list of templates.
fn default_template(field: &Value) -> Option<&str> {
    let named_templates = field.as_array().into_iter().flatten();
    let named_default = || named_templates.clone().find(|one| one["name"] == "default")?["template"].as_str();
    field.as_str().or_else(named_default)
}

/// Text of a token in a `tokenizer_config.json`: a string, or an object with `content`.
pub fn token_text(field: &Value) -> Option<&str> {
    field.as_str().or_else(|| field["content"].as_str())
}
