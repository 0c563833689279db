//! Where a base model's chat template comes from: beside its tokenizer as transformers writes it, or in a GGUF file.

use super::Template;
use crate::error::{Error, Result};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;

/// The names under which templates find special tokens, and what a GGUF file calls them (one of them misspelt).
const TOKENS: [(&str, &str); 7] = [
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
pub fn from_folder(folder: &Path) -> Result<Option<Template>> {
    let config = json_file(&folder.join("tokenizer_config.json"))?;
    let older = json_file(&folder.join("special_tokens_map.json"))?;
    let own = text_file(&folder.join("chat_template.jinja"))?;
    from_config(&config, &older, own.as_deref())
}

/// From the contents of `tokenizer_config.json`, of `special_tokens_map.json` (tokens that the first does not name),
/// and of `chat_template.jinja`, which wins.
///
/// # Errors
/// `Invalid` (`bad_chat_template`) where the template does not parse.
pub fn from_config(config: &Value, older: &Value, own: Option<&str>) -> Result<Option<Template>> {
    let Some(source) = own.or_else(|| written(&config["chat_template"])) else { return Ok(None) };
    let token = |name: &str| token(&config[name]).or_else(|| token(&older[name]));
    let tokens = TOKENS.iter().filter_map(|(name, _)| Some(((*name).to_string(), token(name)?.to_string())));
    Template::new(source, tokens.collect()).map(Some)
}

/// From a GGUF file's metadata: its `tokenizer.chat_template`, and what the token is whose id a key such as
/// `tokenizer.ggml.bos_token_id` has.
///
/// # Errors
/// `Invalid` (`bad_chat_template`) where the template does not parse.
pub fn from_gguf(source: Option<&str>, token: impl Fn(&str) -> Option<String>) -> Result<Option<Template>> {
    let named = |(name, key): &(&str, &str)| Some(((*name).to_string(), token(&format!("tokenizer.ggml.{key}_id"))?));
    let tokens = || TOKENS.iter().filter_map(named).collect();
    source.map(|source| Template::new(source, tokens())).transpose()
}

/// One template, or the one of several that is called "default".
fn written(field: &Value) -> Option<&str> {
    let several = field.as_array().into_iter().flatten();
    let default = || several.clone().find(|one| one["name"] == "default")?["template"].as_str();
    field.as_str().or_else(default)
}

/// A token is its text, or an object that has the text among other things.
fn token(field: &Value) -> Option<&str> {
    field.as_str().or_else(|| field["content"].as_str())
}

/// What is in it, null where there is no such file.
fn json_file(path: &Path) -> Result<Value> {
    let text = text_file(path)?;
    let parsed = text.map_or(Ok(Value::Null), |text| serde_json::from_str(&text));
    parsed.map_err(|error| damaged(path, &error.to_string()))
}

fn text_file(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(damaged(path, &error.to_string())),
    }
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", path.display()))
}
