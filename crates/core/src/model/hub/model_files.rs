//! Which files make a model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

pub(super) const CONFIG_FILE: &str = "config.json";
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(super) const WEIGHTS_FILE: &str = "model.safetensors";
pub(super) const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// Files that a model may do without; the first of them say how sentence-transformers pools.
pub(super) const OPTIONAL_FILES: [&str; 5] = [
    "1_Pooling/config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

#[derive(serde::Deserialize)]
struct WeightsIndex {
    weight_map: BTreeMap<String, String>,
}

/// Whether everything that a model needs is in the folder.
pub(super) fn is_complete_model(folder: &Path) -> bool {
    let has_file = |file: &str| folder.join(file).is_file();
    has_file(CONFIG_FILE) && has_file(TOKENIZER_FILE) && (has_file(WEIGHTS_FILE) || has_all_shards(folder))
}

fn has_all_shards(folder: &Path) -> bool {
    let index = std::fs::read(folder.join(WEIGHTS_INDEX_FILE)).ok().and_then(|bytes| shard_files(&bytes).ok());
    index.is_some_and(|shards| shards.iter().all(|shard| folder.join(shard).is_file()))
}

/// The files among which the weights are divided.
///
/// # Errors
/// What is wrong with the index, where it is no index or would lead out of the model's folder.
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

/// Plain names and sub-folders only: the text becomes part of a path and of an address.
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
