//! Which files make a model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Files that a model may do without; the first of them say how sentence-transformers pools.
pub(super) const OPTIONAL: [&str; 5] = [
    "1_Pooling/config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Whether everything that a model needs is in the folder.
pub(super) fn are_whole(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    has(CONFIG) && has(TOKENIZER) && (has(WEIGHTS) || shards_are_whole(folder))
}

fn shards_are_whole(folder: &Path) -> bool {
    let index = std::fs::read(folder.join(INDEX)).ok().and_then(|bytes| shards(&bytes).ok());
    index.is_some_and(|shards| shards.iter().all(|shard| folder.join(shard).is_file()))
}

/// The files among which the weights are divided.
///
/// # Errors
/// What is wrong with the index, where it is no index or would lead out of the model's folder.
pub(super) fn shards(index: &[u8]) -> Result<BTreeSet<String>, String> {
    let index: Index = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err("it names no file".to_string());
    }
    match shards.iter().find(|shard| !is_inside(shard)) {
        Some(outside) => Err(format!("it names the file {outside:?}, which is none of this model's")),
        None => Ok(shards),
    }
}

/// Plain names and sub-folders only: the text becomes part of a path and of an address.
fn is_inside(file: &str) -> bool {
    let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    plain
        && file.ends_with(".safetensors")
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_each_shard_once() {
        let index = br#"{"metadata": {}, "weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}"#;
        let shards: Vec<String> = shards(index).unwrap().into_iter().collect();
        assert_eq!(shards, ["model-1.safetensors", "model-2.safetensors"]);
    }

    #[test]
    fn an_index_cannot_lead_out_of_the_model() {
        for file in ["../../x.safetensors", "/etc/x.safetensors", "x.py", "a?b.safetensors", "a\\\\b.safetensors"] {
            let index = format!("{{\"weight_map\": {{\"a\": \"{file}\"}}}}");
            assert!(shards(index.as_bytes()).is_err(), "{file}");
        }
        assert!(shards(b"{\"weight_map\": {}}").is_err());
        assert!(shards(b"[]").is_err());
    }
}
