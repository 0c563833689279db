//! Loads the chat template and special tokens from the files of transformers or the metadata of a GGUF file.

use super::template::ChatTemplate;
use crate::error::Result;
use crate::model::checkpoint_files::{read_optional_json, read_optional_text};
use serde_json::Value;
use std::collections::BTreeMap;
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
    let tool_use_file = read_optional_text(&folder.join("additional_chat_templates/tool_use.jinja"))?;
    let files = TemplateSources { default: template_file.as_deref(), tool_use: tool_use_file.as_deref() };
    from_config(&config, &special_tokens_map, files)
}

/// Sources of the templates of a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemplateSources<'a> {
    pub default: Option<&'a str>,
    /// Template of conversations with tools; the default one without it.
    pub tool_use: Option<&'a str>,
}

impl<'a> TemplateSources<'a> {
    /// `chat_template` of a `tokenizer_config.json`: the template, or a list of named templates.
    fn from_field(field: &'a Value) -> Self {
        let named_templates = field.as_array().into_iter().flatten();
        let named = |name: &str| named_templates.clone().find(|one| one["name"] == name)?["template"].as_str();
        Self { default: field.as_str().or_else(|| named("default")), tool_use: named("tool_use") }
    }

    fn parse(self, special_tokens: &BTreeMap<String, String>) -> Result<Option<ChatTemplate>> {
        let new = |source: &str| ChatTemplate::new(source, special_tokens.clone());
        let (default, tool_use) = (self.default.map(new).transpose()?, self.tool_use.map(new).transpose()?);
        Ok(match (default, tool_use) {
            (Some(default), Some(tool_use)) => Some(default.with_tool_use(tool_use)),
            (default, _) => default,
        })
    }
}

/// Loads the template from the contents of `tokenizer_config.json`, `special_tokens_map.json` (for special tokens that the first
/// does not have) and of template files, which override those of the first.
///
/// # Errors
/// `Invalid` (`bad_chat_template`) if a template does not parse.
pub fn from_config(
    config: &Value,
    special_tokens_map: &Value,
    files: TemplateSources<'_>,
) -> Result<Option<ChatTemplate>> {
    let fields = TemplateSources::from_field(&config["chat_template"]);
    let sources = match files.default {
        Some(_) => files,
        None => TemplateSources { tool_use: files.tool_use.or(fields.tool_use), ..fields },
    };
    let token_named = |name: &str| token_text(&config[name]).or_else(|| token_text(&special_tokens_map[name]));
    let special_tokens =
        SPECIAL_TOKEN_NAMES.iter().filter_map(|(name, _)| Some(((*name).to_string(), token_named(name)?.to_string())));
    sources.parse(&special_tokens.collect())
}

/// Loads the templates of a GGUF file, `tokenizer.chat_template` and `tokenizer.chat_template.tool_use`. `token_for_key` returns the
/// token whose id is under a key such as `tokenizer.ggml.bos_token_id`.
///
/// # Errors
/// `Invalid` (`bad_chat_template`) if a template does not parse.
pub fn from_gguf(
    sources: TemplateSources<'_>,
    token_for_key: impl Fn(&str) -> Option<String>,
) -> Result<Option<ChatTemplate>> {
    let to_named_token =
        |(name, key): &(&str, &str)| Some(((*name).to_string(), token_for_key(&format!("tokenizer.ggml.{key}_id"))?));
    sources.parse(&SPECIAL_TOKEN_NAMES.iter().filter_map(to_named_token).collect())
}

/// Text of a token in a `tokenizer_config.json`: a string, or an object with `content`.
pub fn token_text(field: &Value) -> Option<&str> {
    field.as_str().or_else(|| field["content"].as_str())
}
