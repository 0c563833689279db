//! Writes `adapter_config.json` such that PEFT opens the folder.
//!
//! An adapter whose head is that of transformers' classification model is written as `SEQ_CLS`: PEFT restores adapter and head, and
//! transformers computes the same logits. Others are written as `FEATURE_EXTRACTION`, adapters of the bare encoder with the same
//! token states, and their head's tensors are stored under `base_model.model.classifier`: those with mean pooling, which
//! transformers' classification models do not have, and those of a decoder whose head has a bias. A method that PEFT does not
//! have gets a `peft_type` of null, and PEFT rejects the folder.

use super::head::{HeadLayout, naming_for};
use super::vocabulary;
use crate::adapter::peft::{ConfigFields, ExportContext, ModuleNaming};
use crate::artifact::base::BaseSummary;
use crate::artifact::manifest::{AdapterManifest, Artifact};
use crate::error::{Context, Result};
use serde_json::{Map, Value, json};

/// Returns the bytes of the file, with sorted keys as PEFT writes them.
pub fn write_config(artifact: &Artifact, summary: &BaseSummary) -> Result<Vec<u8>> {
    let manifest = &artifact.manifest;
    let naming = naming_for(&manifest.task, &artifact.weights, summary);
    let sites = summary.sites_for(summary.pooling(&manifest.task));
    let mut fields = common_fields(manifest, naming, summary);
    if let Some(mapping) = manifest.method.peft()
        && let Some(peft_type) = mapping.peft_type(sites)
    {
        let other_paths = unadapted_modules(manifest, naming, summary);
        let context =
            ExportContext { info: &summary.info, sites, all_sites: &summary.sites, other_paths: &other_paths, naming };
        fields.insert("peft_type", json!(peft_type));
        fields.extend(mapping.config_fields(&context));
    }
    vocabulary::add_config_fields(&mut fields, &manifest.vocabulary, naming, summary);
    let mut bytes = serde_json::to_vec_pretty(&fields).context("writing adapter_config.json")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Paths of linear maps of transformers' model that are not sites of the base.
fn unadapted_modules(manifest: &AdapterManifest, naming: ModuleNaming, summary: &BaseSummary) -> Vec<&'static str> {
    match naming {
        ModuleNaming::WithHead if manifest.task.is_generative() => vec!["lm_head"],
        ModuleNaming::WithHead => {
            HeadLayout::for_writing(&manifest.task, naming, summary.info.classification_head()).layer_paths().collect()
        }
        // The bare encoder has a pooler even if the checkpoint has none.
        ModuleNaming::Bare => vec!["pooler.dense"],
    }
}

fn common_fields(manifest: &AdapterManifest, naming: ModuleNaming, summary: &BaseSummary) -> ConfigFields {
    // PEFT restores the head for a classification model only.
    let (task_type, modules_to_save) = match (naming, &manifest.task) {
        (_, task) if task.is_generative() => ("CAUSAL_LM", Value::Null),
        (ModuleNaming::WithHead, _) => (
            "SEQ_CLS",
            json!(
                HeadLayout::for_writing(&manifest.task, naming, summary.info.classification_head()).modules_to_save()
            ),
        ),
        (ModuleNaming::Bare, _) => ("FEATURE_EXTRACTION", Value::Null),
    };
    let id2label: Map<String, Value> =
        manifest.labels.iter().enumerate().map(|(index, label)| (index.to_string(), json!(label))).collect();
    ConfigFields::from([
        ("auto_mapping", Value::Null),
        ("base_model_name_or_path", json!(manifest.base.name)),
        ("id2label", json!(id2label)),
        ("inference_mode", json!(true)),
        ("modules_to_save", modules_to_save),
        ("peft_type", Value::Null),
        ("revision", Value::Null),
        ("task_type", json!(task_type)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing;
    use crate::model::Pooling;

    fn written_config(artifact: &Artifact) -> Value {
        serde_json::from_slice(&write_config(artifact, &testing::base_summary()).unwrap()).unwrap()
    }

    #[test]
    fn cls_adapter_is_seq_cls() {
        let config = written_config(&testing::lora_artifact(Pooling::Cls));
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!(config["task_type"], "SEQ_CLS");
        assert_eq!(config["modules_to_save"], json!(["classifier"]));
        assert_eq!(config["target_modules"], json!(["query", "value"]));
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(2), &json!(4)));
        assert_eq!(config["id2label"], json!({"0": "card", "1": "refund", "2": "top_up"}));
        assert_eq!(config["base_model_name_or_path"], "example/tiny-bert");
    }

    #[test]
    fn mean_pooling_is_feature_extraction() {
        let config = written_config(&testing::lora_artifact(Pooling::Mean));
        assert_eq!((&config["task_type"], &config["modules_to_save"]), (&json!("FEATURE_EXTRACTION"), &Value::Null));
    }

    #[test]
    fn head_only_has_no_peft_type() {
        let config = written_config(&testing::head_artifact(Pooling::Cls));
        assert_eq!(config["peft_type"], Value::Null);
        assert_eq!(config.get("r"), None);
    }

    #[test]
    fn keys_are_sorted() {
        let text =
            String::from_utf8(write_config(&testing::lora_artifact(Pooling::Cls), &testing::base_summary()).unwrap())
                .unwrap();
        let keys: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }
}
