//! Writing `adapter_config.json`, so that the real PEFT opens our folder.
//!
//! An adapter whose head is that of transformers' classification model is a `SEQ_CLS` adapter: PEFT restores adapter and head,
//! and transformers answers with the same logits. One that pools by the mean is not, because transformers' classification model has no
//! mean: it is written as an adapter of the bare encoder (`FEATURE_EXTRACTION`), which gives the right token states; the
//! head's tensors lie in the same file under `base_model.model.classifier`. So is a decoder's whose head has a bias, because
//! transformers' has none there. Methods for which PEFT has no type have a
//! `peft_type` of null: PEFT refuses the folder, and it opens here only.

use super::entries;
use super::head::Head;
use super::keys::Form;
use super::suffixes::target_modules;
use crate::adapter::{self, lora};
use crate::artifact::outline::Outline;
use crate::artifact::{Artifact, Card};
use crate::error::{Context, Result};
use crate::model::SiteInfo;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Fields = BTreeMap<&'static str, Value>;

/// The bytes of the file: sorted keys, as PEFT writes them.
pub fn config(artifact: &Artifact, outline: &Outline) -> Result<Vec<u8>> {
    let card = &artifact.card;
    let form = Form::of(&card.task, &artifact.weights, outline);
    let mut fields = common(card, form, outline);
    let sites = outline.sites(outline.pooling(&card.task));
    if let Some(peft_type) = entries::peft_type(&card.method, sites) {
        fields.insert("peft_type", json!(peft_type));
        fields.extend(of_method(card, form, outline));
    }
    let mut bytes = serde_json::to_vec_pretty(&fields).context("writing adapter_config.json")?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn of_method(card: &Card, form: Form, outline: &Outline) -> Fields {
    let (method, sites) = (&card.method, outline.sites(outline.pooling(&card.task)));
    let others = untouched(card, form, outline);
    let targets = |touched: Vec<&SiteInfo>| json!(target_modules(&outline.sites, &others, &touched, form));
    let no_exclusion = ("exclude_modules", Value::Null);
    let turned = ("fan_in_fan_out", json!(outline.info.fan_in_fan_out()));
    match method {
        adapter::Config::Lora(config) => {
            let touched = config.targets(sites);
            let mut fields = of_lora(config, &touched, form);
            fields.extend([("target_modules", targets(touched)), turned]);
            fields
        }
        adapter::Config::Ia3(config) => {
            let touched = config.targets(sites);
            let forward: Vec<&SiteInfo> = touched.iter().copied().filter(|info| config.scales_input(info)).collect();
            // PEFT compares these with the target modules' names as they are written, and matches their ends.
            let forward: Vec<&str> = forward.iter().map(|info| form.path(&info.path)).collect();
            let touched: Vec<&str> = touched.iter().map(|info| form.path(&info.path)).collect();
            BTreeMap::from([
                turned,
                ("feedforward_modules", json!(forward)),
                ("init_ia3_weights", json!(true)),
                ("target_modules", json!(touched)),
                no_exclusion,
            ])
        }
        adapter::Config::LayerNorm(config) => {
            BTreeMap::from([("target_modules", targets(config.targets(sites))), no_exclusion])
        }
        adapter::Config::Vera(config) => BTreeMap::from([
            ("bias", json!("none")),
            ("d_initial", json!(config.d_initial)),
            turned,
            ("init_weights", json!(true)),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", Value::Null),
            ("projection_prng_key", json!(config.projection_seed)),
            ("r", json!(config.rank)),
            ("save_projection", json!(true)),
            ("target_modules", targets(config.targets(sites))),
            ("vera_dropout", json!(config.dropout)),
        ]),
        adapter::Config::PromptTuning(_) | adapter::Config::PTuning(_) | adapter::Config::PrefixTuning(_) => {
            of_virtual(method, outline)
        }
        adapter::Config::Bottleneck(_) | adapter::Config::Bias(_) | adapter::Config::Head(_) => BTreeMap::new(),
    }
}

/// Linear maps of transformers' model that no adapter touches, and that a rule for others must not catch.
fn untouched(card: &Card, form: Form, outline: &Outline) -> Vec<&'static str> {
    match (form, &card.task) {
        (_, task) if task.generates() => vec!["lm_head"],
        (Form::Headed, _) => Head::of(&card.task, form, outline.info.head()).paths().collect(),
        // The bare encoder has a pooler, also where the checkpoint has none or none that is read.
        (Form::Bare, _) => vec!["pooler.dense"],
    }
}

fn of_virtual(method: &adapter::Config, outline: &Outline) -> Fields {
    let info = &outline.info;
    let mut fields: Fields = BTreeMap::from([
        ("num_attention_heads", json!(info.attention_heads)),
        ("num_layers", json!(info.layers)),
        ("num_transformer_submodules", json!(1)),
        ("num_virtual_tokens", json!(method.virtual_tokens())),
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
            ("num_attention_heads", json!(outline.key_heads())),
            ("token_dim", json!(outline.key_width())),
        ]),
        _ => fields.extend([("prompt_tuning_init", json!("RANDOM")), ("tokenizer_name_or_path", Value::Null)]),
    }
    fields
}

fn common(card: &Card, form: Form, outline: &Outline) -> Fields {
    // PEFT restores the head for a classification model only.
    let (task_type, modules_to_save) = match (form, &card.task) {
        (_, task) if task.generates() => ("CAUSAL_LM", Value::Null),
        (Form::Headed, _) => ("SEQ_CLS", json!(Head::of(&card.task, form, outline.info.head()).modules())),
        (Form::Bare, _) => ("FEATURE_EXTRACTION", Value::Null),
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

fn of_lora(config: &lora::Config, touched: &[&SiteInfo], form: Form) -> Fields {
    // By whole paths, which mean one module each.
    let differs = |info: &&&SiteInfo| config.rank_at(info) != config.rank;
    let ranks: Map<String, Value> = touched
        .iter()
        .filter(differs)
        .map(|info| (form.path(&info.path).to_string(), json!(config.rank_at(info))))
        .collect();
    let alphas: Map<String, Value> = touched
        .iter()
        .filter(|info| config.alpha_at(info) != config.alpha())
        .map(|info| (form.path(&info.path).to_string(), shortest(config.alpha_at(info))))
        .collect();
    let bias = match config.bias {
        lora::BiasKind::None => "none",
        lora::BiasKind::LoraOnly => "lora_only",
    };
    BTreeMap::from([
        ("alpha_pattern", json!(alphas)),
        ("bias", json!(bias)),
        ("exclude_modules", Value::Null),
        ("init_lora_weights", json!(true)),
        ("layer_replication", Value::Null),
        ("layers_pattern", Value::Null),
        ("layers_to_transform", Value::Null),
        ("lora_alpha", shortest(config.alpha())),
        ("lora_bias", json!(false)),
        ("lora_dropout", json!(config.dropout)),
        ("r", json!(config.rank)),
        ("rank_pattern", json!(ranks)),
        ("use_dora", json!(config.dora)),
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
    use crate::model::Pooling;

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
