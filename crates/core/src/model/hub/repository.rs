//! Id and files of a model repository on the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};

const DEFAULT_REVISION: &str = "main";

/// Repository `org/name` (or `name` for the oldest models), and a branch, tag or commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelId {
    pub repository: String,
    pub revision: String,
}

impl ModelId {
    /// Parses `repository` or `repository@revision`; `None` if it is not a valid id on the hub.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let parts: Vec<&str> = repository.split('/').collect();
        let is_valid = parts.len() <= 2 && parts.iter().all(|part| is_valid_name(part)) && is_valid_revision(revision);
        is_valid.then(|| Self { repository: repository.to_string(), revision: revision.to_string() })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            DEFAULT_REVISION => write!(f, "{}", self.repository),
            revision => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// Rule of the hub: letters, digits, `-`, `_`, `.`; not `--` or `..`; neither `-` nor `.` at the ends.
fn is_valid_name(name: &str) -> bool {
    let has_allowed_characters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let has_bad_edge = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
    has_allowed_characters
        && !has_bad_edge
        && (1..=96).contains(&name.len())
        && !name.contains("--")
        && !name.contains("..")
}

/// A revision becomes part of a URL and of a path, so it must not contain `..`.
fn is_valid_revision(revision: &str) -> bool {
    let has_allowed_characters = revision.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    let has_safe_parts = revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    has_allowed_characters && has_safe_parts && !revision.contains("..")
}

pub(super) const CONFIG_FILE: &str = "config.json";
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
/// Read where there is no [`TOKENIZER_FILE`].
pub(super) const VOCABULARY_FILE: &str = "vocab.txt";
pub(super) const WEIGHTS_FILE: &str = "model.safetensors";
pub(super) const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// Optional files: those of sentence-transformers, then those of the tokenizer and of generation.
pub(super) const OPTIONAL_FILES: [&str; 8] = [
    "1_Pooling/config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "generation_config.json",
];

#[derive(serde::Deserialize)]
struct WeightsIndex {
    weight_map: BTreeMap<String, String>,
}

/// Whether the folder has all required files.
pub(super) fn is_complete_model(folder: &Path) -> bool {
    let has_file = |file: &str| folder.join(file).is_file();
    let has_tokenizer = has_file(TOKENIZER_FILE) || has_file(VOCABULARY_FILE);
    has_file(CONFIG_FILE) && has_tokenizer && (has_file(WEIGHTS_FILE) || has_all_shards(folder))
}

fn has_all_shards(folder: &Path) -> bool {
    let index = std::fs::read(folder.join(WEIGHTS_INDEX_FILE)).ok().and_then(|bytes| shard_files(&bytes).ok());
    index.is_some_and(|shards| shards.iter().all(|shard| folder.join(shard).is_file()))
}

/// Shard files of a `model.safetensors.index.json`.
///
/// # Errors
/// A description, if the index is damaged or names a file outside of the folder.
pub(super) fn shard_files(index_json: &[u8]) -> Result<BTreeSet<String>, String> {
    let index: WeightsIndex = serde_json::from_slice(index_json).map_err(|error| error.to_string())?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err("it names no file".to_string());
    }
    match shards.iter().find(|shard| !is_safe_shard_path(shard)) {
        Some(unsafe_path) => Err(format!("it names the file {unsafe_path:?}, which is none of this model's")),
        None => Ok(shards),
    }
}

/// Whether a shard is a relative path without `..`, because it becomes part of a URL and of a path.
fn is_safe_shard_path(file: &str) -> bool {
    let has_safe_characters = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    has_safe_characters
        && file.ends_with(".safetensors")
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_repository_and_revision() {
        let id = ModelId::parse("sentence-transformers/all-MiniLM-L6-v2").unwrap();
        assert_eq!((id.repository.as_str(), id.revision.as_str()), ("sentence-transformers/all-MiniLM-L6-v2", "main"));
        let id = ModelId::parse("bert-base-uncased@refs/pr/7").unwrap();
        assert_eq!((id.repository.as_str(), id.revision.as_str()), ("bert-base-uncased", "refs/pr/7"));
    }

    #[test]
    fn rejects_paths() {
        for text in [
            "",
            "./model",
            "../model",
            "/models/a",
            "a/b/c",
            "a//b",
            "a/b@",
            "a/b@../x",
            "a/b@x/.y",
            "a b",
            "a/-b",
            "a--b",
        ] {
            assert_eq!(ModelId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn index_lists_each_shard_once() {
        let index = br#"{"metadata": {}, "weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}"#;
        let shards: Vec<String> = shard_files(index).unwrap().into_iter().collect();
        assert_eq!(shards, ["model-1.safetensors", "model-2.safetensors"]);
    }

    #[test]
    fn index_rejects_path_traversal() {
        for file in ["../../x.safetensors", "/etc/x.safetensors", "x.py", "a?b.safetensors", "a\\\\b.safetensors"] {
            let index = format!("{{\"weight_map\": {{\"a\": \"{file}\"}}}}");
            assert!(shard_files(index.as_bytes()).is_err(), "{file}");
        }
        assert!(shard_files(b"{\"weight_map\": {}}").is_err());
        assert!(shard_files(b"[]").is_err());
    }
}
