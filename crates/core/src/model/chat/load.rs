//! Where a base model's chat template comes from: beside its tokenizer as transformers writes it, or in a GGUF file.

use super::template::ChatTemplate;
use crate::error::{Error, Result};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// The names under which templates find special tokens, and what a GGUF file calls them (one of them misspelt).
const SPECIAL_TOKEN_NAMES: [(&str, &str); 7] = [
    ("bos_token", "bos_token"),
    ("eos_token", "eos_token"),
    ("unk_token", "unknown_token"),
    ("sep_token", "seperator_token"),
    ("pad_token", "padding_token"),
    ("cls_token", "cls_token"),
    ("mask_token", "mask_token"),
];

/// From `tokenizer_config.json` and the files beside it; `None` where there is no template.
///
/// # Errors
/// `Invalid`: `base_model_damaged` where a file cannot be read, `bad_chat_template` where the template does not parse.
pub fn from_folder(folder: &Path) -> Result<Option<ChatTemplate>> {
    let config = read_json_or_null(&folder.join("tokenizer_config.json"))?;
    let special_tokens_map = read_json_or_null(&folder.join("special_tokens_map.json"))?;
    let template_file = read_text_if_present(&folder.join("chat_template.jinja"))?;
    from_config(&config, &special_tokens_map, template_file.as_deref())
}

/// From the contents of `tokenizer_config.json`, of `special_tokens_map.json` (tokens that the first does not name),
/// and of `chat_template.jinja`, which wins.
///
/// # Errors
/// `Invalid` (`bad_chat_template`) where the template does not parse.
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

/// From a GGUF file's metadata: its `tokenizer.chat_template`, and what the token is whose id a key such as
/// `tokenizer.ggml.bos_token_id` has.
///
/// # Errors
/// `Invalid` (`bad_chat_template`) where the template does not parse.
pub fn from_gguf(source: Option<&str>, token_for_key: impl Fn(&str) -> Option<String>) -> Result<Option<ChatTemplate>> {
    let to_named_token =
        |(name, key): &(&str, &str)| Some(((*name).to_string(), token_for_key(&format!("tokenizer.ggml.{key}_id"))?));
    let special_tokens = || SPECIAL_TOKEN_NAMES.iter().filter_map(to_named_token).collect();
    source.map(|source| ChatTemplate::new(source, special_tokens())).transpose()
}

/// One template, or the one of several that is called "default".
fn default_template(field: &Value) -> Option<&str> {
    let named_templates = field.as_array().into_iter().flatten();
    let named_default = || named_templates.clone().find(|one| one["name"] == "default")?["template"].as_str();
    field.as_str().or_else(named_default)
}

/// A token is its text, or an object that has the text among other things.
fn token_text(field: &Value) -> Option<&str> {
    field.as_str().or_else(|| field["content"].as_str())
}

/// What is in it, null where there is no such file.
fn read_json_or_null(path: &Path) -> Result<Value> {
    let text = read_text_if_present(path)?;
    let parsed_json = text.map_or(Ok(Value::Null), |text| serde_json::from_str(&text));
    parsed_json.map_err(|error| damaged_file(path, &error.to_string()))
}

fn read_text_if_present(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(damaged_file(path, &error.to_string())),
    }
}

fn damaged_file(path: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", path.display()))
}
