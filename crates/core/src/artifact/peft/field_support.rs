//! The fields of an `adapter_config.json` that are implemented; every other one is rejected by name.
//!
//! PEFT writes every default, so an unknown field is harmless if it is null, false, zero or empty.

use crate::adapter::peft::mapping::{is_default, unsupported_bias};
use crate::adapter::peft_methods::PeftMethodEntry;
use crate::adapter::tensor_spec::ValidationErrors;
use crate::error::Result;
use serde_json::{Map, Value};

/// Fields that are read for every method.
const COMMON_FIELDS: [&str; 11] = [
    "peft_type",
    "task_type",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "base_model_name_or_path",
    "id2label",
    "labels",
    "modules_to_save",
    "trainable_token_indices",
];

/// Fields without an effect, whatever their value: how and where the adapter was trained, and settings that only another field
/// enables.
const IGNORED_FIELDS: [&str; 12] = [
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

/// Advice for fields that are in use but not implemented.
const UNSUPPORTED_FIELD_ADVICE: [(&str, &str); 8] = [
    ("lora_bias", "train with lora_bias=False"),
    ("layer_replication", "train on the base's own layers"),
    ("ensure_weight_tying", "train with ensure_weight_tying=False"),
    ("target_parameters", "name linear modules in target_modules"),
    ("megatron_config", "train with transformers' own modules"),
    ("alora_invocation_tokens", "train without invocation tokens"),
    ("use_qalora", "train with use_qalora=False"),
    ("use_bdlora", "train with use_bdlora=None"),
];

/// # Errors
/// `Invalid` (`unsupported_adapter`) naming every field that requires something that is not implemented. `method` is `None` for a
/// `peft_type` of null.
pub fn check_fields(method: Option<&PeftMethodEntry>, config: &Map<String, Value>) -> Result<()> {
    let mut errors = ValidationErrors::default();
    for (field, value) in config {
        if let Some(message) = field_error(method, field, value) {
            errors.push(message);
        }
    }
    errors.into_result("unsupported_adapter", "adapter_config.json asks for what this server does not support")
}

fn field_error(method: Option<&PeftMethodEntry>, field: &str, value: &Value) -> Option<String> {
    if let Some(method) = method.filter(|method| method.accepted_fields.contains(&field)) {
        return (method.value_error)(field, value);
    }
    match field {
        "bias" => (!is_default(value) && value != "none").then(|| unsupported_bias(value)),
        _ if COMMON_FIELDS.contains(&field) || IGNORED_FIELDS.contains(&field) || is_default(value) => None,
        _ => Some(match UNSUPPORTED_FIELD_ADVICE.iter().find(|(name, _)| *name == field) {
            Some((_, advice)) => format!("{field} is set: {advice}"),
            None => format!("{field} is set and not known here: leave it out or set it to null"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error_text(config: Value) -> String {
        let error = check_fields(PeftMethodEntry::find("LORA"), config.as_object().unwrap()).unwrap_err();
        assert_eq!(error.code(), "unsupported_adapter");
        error.to_string()
    }

    #[test]
    fn unsupported_fields_are_reported_with_advice() {
        let detail = error_text(json!({
            "bias": "all", "d_initial": 0.1,
            "layer_replication": [[0, 2]], "ensure_weight_tying": true, "megatron_config": {"a": 1},
            "init_lora_weights": "pissa", "x_new": 3,
        }));
        for words in [
            "bias is \"all\", expected \"none\"",
            "d_initial is set and not known here",
            "layer_replication is set",
            "ensure_weight_tying is set",
            "megatron_config is set",
            "init_lora_weights is \"pissa\"",
            "x_new is set and not known here",
        ] {
            assert!(detail.contains(words), "{detail} should say {words}");
        }
    }

    #[test]
    fn peft_defaults_are_accepted() {
        let config = json!({
            "use_dora": false, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "loftq_config": {},
            "megatron_core": "megatron.core", "qalora_group_size": 16, "init_lora_weights": true, "kasa_config": null,
            "modules_to_save": ["classifier", "score"], "x_new": null, "y_new": [], "peft_version": "0.21.2",
        });
        check_fields(PeftMethodEntry::find("LORA"), config.as_object().unwrap()).unwrap();
    }
}
