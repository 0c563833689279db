//! What an `adapter_config.json` may ask for, and the refusal of everything else by name.
//!
//! A field that this server does not know is harmless as long as it is null, false, zero or empty: PEFT writes every
//! default out.

use crate::artifact::faults::Faults;
use crate::error::Result;
use serde_json::{Map, Value};

/// Fields that `config.rs` and `targets.rs` read.
const READ: [&str; 16] = [
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "base_model_name_or_path",
    "bias",
    "init_lora_weights",
    "id2label",
    "labels",
];

/// Fields that change nothing here, whatever they hold: what a trainer did or where it ran, and settings of methods
/// that other fields would have to switch on.
const INDIFFERENT: [&str; 12] = [
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "label2id",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
];

/// What would be right instead, for the fields that people use.
const ADVICE: [(&str, &str); 12] = [
    ("use_dora", "train with use_dora=False"),
    ("rank_pattern", "train with one rank for all modules"),
    ("alpha_pattern", "train with one lora_alpha for all modules"),
    ("fan_in_fan_out", "this base has linear layers only: train with fan_in_fan_out=False"),
    ("lora_bias", "train with lora_bias=False"),
    ("layer_replication", "train on the base's own layers"),
    ("trainable_token_indices", "train without trainable tokens"),
    ("target_parameters", "name linear modules in target_modules"),
    ("megatron_config", "train with transformers' own modules"),
    ("alora_invocation_tokens", "train without invocation tokens"),
    ("use_qalora", "train with use_qalora=False"),
    ("use_bdlora", "train with use_bdlora=None"),
];

/// Initialisations that leave the base as it is. The others move a part of the base's weights into the adapter, which
/// is then no adapter of this base.
const INITIALISATIONS: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

/// # Errors
/// `Invalid` (`unsupported_adapter`) naming every field that asks for something else than LoRA with a linear classifier.
pub fn check(config: &Map<String, Value>) -> Result<()> {
    let mut faults = Faults::default();
    for (field, value) in config {
        if let Some(fault) = fault(field, value) {
            faults.add(fault);
        }
    }
    faults.finish("unsupported_adapter", "adapter_config.json asks for what this server does not support")
}

fn fault(field: &str, value: &Value) -> Option<String> {
    match field {
        "bias" if is_default(value) || value == "none" => None,
        "bias" => Some(format!("bias is {value}, expected \"none\": train with bias=\"none\"")),
        "init_lora_weights" => initialisation(value),
        "modules_to_save" => modules_to_save(value),
        _ if READ.contains(&field) || INDIFFERENT.contains(&field) || is_default(value) => None,
        _ => Some(match ADVICE.iter().find(|(name, _)| *name == field) {
            Some((_, advice)) => format!("{field} is set: {advice}"),
            None => format!("{field} is set and not known here: leave it out or set it to null"),
        }),
    }
}

fn initialisation(value: &Value) -> Option<String> {
    let known = match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(word) => INITIALISATIONS.contains(&word.to_lowercase().as_str()),
        _ => false,
    };
    let advice = "it changes the base's weights: convert the adapter to plain LoRA by passing \
                  path_initial_model_for_weight_conversion to save_pretrained";
    (!known).then(|| format!("init_lora_weights is {value}, and {advice}"))
}

fn modules_to_save(value: &Value) -> Option<String> {
    let strange: Vec<&Value> = match value {
        Value::Null => Vec::new(),
        Value::Array(names) => names.iter().filter(|name| *name != "classifier" && *name != "score").collect(),
        other => vec![other],
    };
    let first = strange.first()?;
    Some(format!(
        "modules_to_save holds {first}, expected the classifier alone: train with modules_to_save=[\"classifier\"]"
    ))
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(config: Value) -> String {
        let error = check(config.as_object().unwrap()).unwrap_err();
        assert_eq!(error.code(), "unsupported_adapter");
        error.to_string()
    }

    #[test]
    fn every_unsupported_field_is_named_with_what_would_be_right() {
        let detail = refusal(json!({
            "use_dora": true, "bias": "lora_only", "rank_pattern": {"query": 4}, "fan_in_fan_out": true,
            "layer_replication": [[0, 2]], "trainable_token_indices": [1], "megatron_config": {"a": 1},
            "modules_to_save": ["classifier", "pooler"], "init_lora_weights": "pissa", "x_new": 3,
        }));
        for words in [
            "use_dora is set: train with use_dora=False",
            "bias is \"lora_only\", expected \"none\"",
            "rank_pattern is set",
            "fan_in_fan_out is set",
            "layer_replication is set",
            "trainable_token_indices is set",
            "megatron_config is set",
            "modules_to_save holds \"pooler\", expected the classifier alone",
            "init_lora_weights is \"pissa\"",
            "x_new is set and not known here",
        ] {
            assert!(detail.contains(words), "{detail} should say {words}");
        }
    }

    #[test]
    fn the_defaults_that_peft_writes_out_are_fine() {
        let config = json!({
            "use_dora": false, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "loftq_config": {},
            "megatron_core": "megatron.core", "qalora_group_size": 16, "init_lora_weights": true, "kasa_config": null,
            "modules_to_save": ["classifier", "score"], "x_new": null, "y_new": [], "peft_version": "0.21.2",
        });
        check(config.as_object().unwrap()).unwrap();
    }
}
