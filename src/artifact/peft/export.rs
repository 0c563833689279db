//! Writing `adapter_config.json`, so that the real PEFT opens our folder.
//!
//! An adapter that pools with BERT's pooler is a `SEQ_CLS` adapter: PEFT restores adapter and head, and transformers
//! answers with the same logits. One that pools by the mean is not, because transformers' classification model has no
//! mean: it is written as an adapter of the bare encoder (`FEATURE_EXTRACTION`), which gives the right token states; the
//! head's tensors lie in the same file under `base_model.model.classifier`. A `head` has no PEFT type at all: its
//! `peft_type` is null, PEFT refuses the folder, and it opens here only.

use super::keys::{Form, Half};
use super::suffixes::target_modules;
use crate::adapter::{self, lora};
use crate::artifact::outline::Outline;
use crate::artifact::{Artifact, Card};
use crate::error::{Context, Result};
use crate::model::{Pooling, SiteInfo};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The bytes of the file: sorted keys, as PEFT writes them.
pub fn config(artifact: &Artifact, outline: &Outline) -> Result<Vec<u8>> {
    let card = &artifact.card;
    let pooling = outline.pooling(&card.task);
    let mut fields = common(card, pooling);
    if let adapter::Config::Lora(config) = &card.method {
        let touched = touched(artifact, outline, pooling);
        let targets = target_modules(&outline.sites, &touched, Form::of(pooling));
        fields.extend(of_lora(config, targets));
    }
    let mut bytes = serde_json::to_vec_pretty(&fields).context("writing adapter_config.json")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The sites whose tensors the adapter holds.
fn touched<'a>(artifact: &Artifact, outline: &'a Outline, pooling: Pooling) -> Vec<&'a SiteInfo> {
    outline.sites(pooling).iter().filter(|info| artifact.weights.contains_key(&Half::A.name(info.site))).collect()
}

fn common(card: &Card, pooling: Pooling) -> BTreeMap<&'static str, Value> {
    // PEFT restores the head for a classification model only.
    let (task_type, modules_to_save) = match pooling {
        Pooling::Cls => ("SEQ_CLS", json!(["classifier"])),
        Pooling::Mean | Pooling::First => ("FEATURE_EXTRACTION", Value::Null),
    };
    let id2label: Map<String, Value> =
        card.labels.iter().enumerate().map(|(index, label)| (index.to_string(), json!(label))).collect();
    BTreeMap::from([
        ("auto_mapping", Value::Null),
        ("base_model_name_or_path", json!(card.base.name)),
        ("id2label", json!(id2label)),
        ("inference_mode", json!(true)),
        ("modules_to_save", modules_to_save),
        ("peft_type", Value::Null),
        ("revision", Value::Null),
        ("task_type", json!(task_type)),
    ])
}

fn of_lora(config: &lora::Config, targets: Vec<String>) -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("alpha_pattern", json!({})),
        ("bias", json!("none")),
        ("exclude_modules", Value::Null),
        ("fan_in_fan_out", json!(false)),
        ("init_lora_weights", json!(true)),
        ("layer_replication", Value::Null),
        ("layers_pattern", Value::Null),
        ("layers_to_transform", Value::Null),
        ("lora_alpha", shortest(config.alpha())),
        ("lora_bias", json!(false)),
        ("lora_dropout", json!(config.dropout)),
        ("peft_type", json!("LORA")),
        ("r", json!(config.rank)),
        ("rank_pattern", json!({})),
        ("target_modules", json!(targets)),
        ("use_dora", json!(false)),
        ("use_rslora", json!(config.rslora)),
    ])
}

/// PEFT declares `lora_alpha` an integer: a whole number is written as one.
fn shortest(alpha: f64) -> Value {
    match alpha.fract() == 0.0 && alpha.abs() < f64::from(u32::MAX) {
        true => json!(alpha as i64),
        false => json!(alpha),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing;

    fn written(artifact: &Artifact) -> Value {
        serde_json::from_slice(&config(artifact, &testing::outline()).unwrap()).unwrap()
    }

    #[test]
    fn a_cls_adapter_is_one_of_the_classification_model() {
        let config = written(&testing::lora(Pooling::Cls));
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!(config["task_type"], "SEQ_CLS");
        assert_eq!(config["modules_to_save"], json!(["classifier"]));
        assert_eq!(config["target_modules"], json!(["query", "value"]));
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(2), &json!(4)));
        assert_eq!(config["id2label"], json!({"0": "card", "1": "refund", "2": "top_up"}));
        assert_eq!(config["base_model_name_or_path"], "example/tiny-bert");
    }

    #[test]
    fn a_mean_adapter_is_one_of_the_encoder_because_the_classification_model_has_no_mean() {
        let config = written(&testing::lora(Pooling::Mean));
        assert_eq!((&config["task_type"], &config["modules_to_save"]), (&json!("FEATURE_EXTRACTION"), &Value::Null));
    }

    #[test]
    fn a_bare_head_does_not_pretend_to_be_a_peft_adapter() {
        let config = written(&testing::head(Pooling::Cls));
        assert_eq!(config["peft_type"], Value::Null);
        assert_eq!(config.get("r"), None);
    }

    #[test]
    fn keys_are_sorted_and_a_broken_alpha_stays_broken() {
        let text = String::from_utf8(config(&testing::lora(Pooling::Cls), &testing::outline()).unwrap()).unwrap();
        let keys: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!((shortest(4.0), shortest(4.5)), (json!(4), json!(4.5)));
    }
}
