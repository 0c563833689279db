//! Writing `adapter_config.json`, so that the real PEFT opens our folder.
//!
//! An adapter whose head is that of transformers' classification model is a `SEQ_CLS` adapter: PEFT restores adapter and head,
//! and transformers answers with the same logits. One that pools by the mean is not, because transformers' classification model has no
//! mean: it is written as an adapter of the bare encoder (`FEATURE_EXTRACTION`), which gives the right token states; the
//! head's tensors lie in the same file under `base_model.model.classifier`. So is a decoder's whose head has a bias, because
//! transformers' has none there. Methods for which PEFT has no type have a
//! `peft_type` of null: PEFT refuses the folder, and it opens here only.

use super::head::HeadLayout;
use super::module_naming::ModuleNaming;
use super::target_suffixes::minimal_target_modules;
use super::tensor_specs;
use crate::adapter::{self, lora};
use crate::artifact::base_summary::BaseSummary;
use crate::artifact::{AdapterManifest, Artifact};
use crate::error::{Context, Result};
use crate::model::SiteInfo;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type ConfigFields = BTreeMap<&'static str, Value>;

/// The bytes of the file: sorted keys, as PEFT writes them.
pub fn write_config(artifact: &Artifact, summary: &BaseSummary) -> Result<Vec<u8>> {
    let manifest = &artifact.manifest;
    let naming = ModuleNaming::for_adapter(&manifest.task, &artifact.weights, summary);
    let mut fields = common_fields(manifest, naming, summary);
    let sites = summary.sites_for(summary.pooling(&manifest.task));
    if let Some(peft_type) = tensor_specs::peft_type(&manifest.method, sites) {
        fields.insert("peft_type", json!(peft_type));
        fields.extend(method_fields(manifest, naming, summary));
    }
    let mut bytes = serde_json::to_vec_pretty(&fields).context("writing adapter_config.json")?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn method_fields(manifest: &AdapterManifest, naming: ModuleNaming, summary: &BaseSummary) -> ConfigFields {
    let (method, sites) = (&manifest.method, summary.sites_for(summary.pooling(&manifest.task)));
    let other_paths = unadapted_modules(manifest, naming, summary);
    let target_modules_json =
        |touched: Vec<&SiteInfo>| json!(minimal_target_modules(&summary.sites, &other_paths, &touched, naming));
    let exclude_modules = ("exclude_modules", Value::Null);
    let fan_in_fan_out = ("fan_in_fan_out", json!(summary.info.fan_in_fan_out()));
    match method {
        adapter::Config::Lora(config) => {
            let adapted_sites = config.target_sites(sites);
            let mut fields = lora_fields(config, &adapted_sites, naming);
            fields.extend([("target_modules", target_modules_json(adapted_sites)), fan_in_fan_out]);
            fields
        }
        adapter::Config::Ia3(config) => {
            let adapted_sites = config.target_sites(sites);
            let feedforward_sites: Vec<&SiteInfo> =
                adapted_sites.iter().copied().filter(|info| config.scales_input(info)).collect();
            // PEFT compares these with the target modules' names as they are written, and matches their ends.
            let feedforward_paths: Vec<&str> =
                feedforward_sites.iter().map(|info| naming.strip_prefix(&info.module_path)).collect();
            let adapted_paths: Vec<&str> =
                adapted_sites.iter().map(|info| naming.strip_prefix(&info.module_path)).collect();
            BTreeMap::from([
                fan_in_fan_out,
                ("feedforward_modules", json!(feedforward_paths)),
                ("init_ia3_weights", json!(true)),
                ("target_modules", json!(adapted_paths)),
                exclude_modules,
            ])
        }
        adapter::Config::LayerNorm(config) => {
            BTreeMap::from([("target_modules", target_modules_json(config.target_sites(sites))), exclude_modules])
        }
        adapter::Config::Vera(config) => BTreeMap::from([
            ("bias", json!("none")),
            ("d_initial", json!(config.d_initial)),
            fan_in_fan_out,
            ("init_weights", json!(true)),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", Value::Null),
            ("projection_prng_key", json!(config.projection_seed)),
            ("r", json!(config.rank)),
            ("save_projection", json!(true)),
            ("target_modules", target_modules_json(config.target_sites(sites))),
            ("vera_dropout", json!(config.dropout)),
        ]),
        adapter::Config::PromptTuning(_) | adapter::Config::PTuning(_) | adapter::Config::PrefixTuning(_) => {
            prompt_learning_fields(method, summary)
        }
        adapter::Config::Bottleneck(_) | adapter::Config::Bias(_) | adapter::Config::Head(_) => BTreeMap::new(),
    }
}

/// Linear maps of transformers' model that no adapter touches, and that a rule for others must not catch.
fn unadapted_modules(manifest: &AdapterManifest, naming: ModuleNaming, summary: &BaseSummary) -> Vec<&'static str> {
    match (naming, &manifest.task) {
        (_, task) if task.is_generative() => vec!["lm_head"],
        (ModuleNaming::WithHead, _) => {
            HeadLayout::for_writing(&manifest.task, naming, summary.info.classification_head()).layer_paths().collect()
        }
        // The bare encoder has a pooler, also where the checkpoint has none or none that is read.
        (ModuleNaming::Bare, _) => vec!["pooler.dense"],
    }
}

fn prompt_learning_fields(method: &adapter::Config, summary: &BaseSummary) -> ConfigFields {
    let info = &summary.info;
    let mut fields: ConfigFields = BTreeMap::from([
        ("num_attention_heads", json!(info.attention_heads)),
        ("num_layers", json!(info.layers)),
        ("num_transformer_submodules", json!(1)),
        ("num_virtual_tokens", json!(method.num_virtual_tokens())),
        ("token_dim", json!(info.hidden_size)),
    ]);
    match method {
        adapter::Config::PTuning(config) => fields.extend([
            ("encoder_dropout", json!(0.0)),
            ("encoder_hidden_size", json!(config.encoder_hidden_size.unwrap_or(info.hidden_size))),
            ("encoder_num_layers", json!(2)),
            ("encoder_reparameterization_type", json!("MLP")),
        ]),
        adapter::Config::PrefixTuning(config) => fields.extend([
            ("encoder_hidden_size", json!(config.projection_hidden_size.unwrap_or(info.hidden_size))),
            // What is stored is projected already.
            ("prefix_projection", json!(false)),
            // Of keys and values, of which several heads of queries may share one.
            ("num_attention_heads", json!(summary.num_kv_heads())),
            ("token_dim", json!(summary.key_width())),
        ]),
        _ => fields.extend([("prompt_tuning_init", json!("RANDOM")), ("tokenizer_name_or_path", Value::Null)]),
    }
    fields
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
    BTreeMap::from([
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

fn lora_fields(config: &lora::Config, adapted_sites: &[&SiteInfo], naming: ModuleNaming) -> ConfigFields {
    // By whole paths, which mean one module each.
    let has_other_rank = |info: &&&SiteInfo| config.rank_for(info) != config.rank;
    let rank_pattern: Map<String, Value> = adapted_sites
        .iter()
        .filter(has_other_rank)
        .map(|info| (naming.strip_prefix(&info.module_path).to_string(), json!(config.rank_for(info))))
        .collect();
    let alpha_pattern: Map<String, Value> = adapted_sites
        .iter()
        .filter(|info| config.alpha_for(info) != config.alpha())
        .map(|info| (naming.strip_prefix(&info.module_path).to_string(), alpha_to_json(config.alpha_for(info))))
        .collect();
    let bias = match config.bias {
        lora::BiasKind::None => "none",
        lora::BiasKind::LoraOnly => "lora_only",
    };
    BTreeMap::from([
        ("alpha_pattern", json!(alpha_pattern)),
        ("bias", json!(bias)),
        ("exclude_modules", Value::Null),
        ("init_lora_weights", json!(true)),
        ("layer_replication", Value::Null),
        ("layers_pattern", Value::Null),
        ("layers_to_transform", Value::Null),
        ("lora_alpha", alpha_to_json(config.alpha())),
        ("lora_bias", json!(false)),
        ("lora_dropout", json!(config.dropout)),
        ("r", json!(config.rank)),
        ("rank_pattern", json!(rank_pattern)),
        ("use_dora", json!(config.dora)),
        ("use_rslora", json!(config.rslora)),
    ])
}

/// PEFT declares `lora_alpha` an integer: a whole number is written as one.
fn alpha_to_json(alpha: f64) -> Value {
    match alpha.fract() == 0.0 && alpha.abs() < f64::from(u32::MAX) {
        true => json!(alpha as i64),
        false => json!(alpha),
    }
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
    fn keys_are_sorted_and_fractional_alpha_is_kept() {
        let text =
            String::from_utf8(write_config(&testing::lora_artifact(Pooling::Cls), &testing::base_summary()).unwrap())
                .unwrap();
        let keys: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!((alpha_to_json(4.0), alpha_to_json(4.5)), (json!(4), json!(4.5)));
    }
}
