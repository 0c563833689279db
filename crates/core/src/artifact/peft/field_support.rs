//! What an `adapter_config.json` may ask for, and the refusal of everything else by name.
//!
//! A field that this server does not know is harmless as long as it is null, false, zero or empty: PEFT writes every
//! default out.

use crate::artifact::validation_errors::ValidationErrors;
use crate::error::Result;
use serde_json::{Map, Value};

/// Fields that are read, whatever the method.
const COMMON_FIELDS: [&str; 11] = [
    "peft_type",
    "task_type",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "base_model_name_or_path",
    "id2label",
    "labels",
    "init_lora_weights",
];

/// Whether the base's maps are kept as (input, output), which is compared with the base.
pub const FAN_IN_FAN_OUT: &str = "fan_in_fan_out";

/// Fields that are read of a method, or say only how its training began.
fn method_fields(peft_type: Option<&str>) -> &'static [&'static str] {
    match peft_type {
        Some("LORA") => &[
            "r",
            "lora_alpha",
            "lora_dropout",
            "use_rslora",
            "use_dora",
            "rank_pattern",
            "alpha_pattern",
            FAN_IN_FAN_OUT,
        ],
        Some("IA3") => &["feedforward_modules", "init_ia3_weights", FAN_IN_FAN_OUT],
        Some("VERA") => &[
            "r",
            "projection_prng_key",
            "save_projection",
            "vera_dropout",
            "d_initial",
            "init_weights",
            FAN_IN_FAN_OUT,
        ],
        Some("PROMPT_TUNING") => &[
            "num_virtual_tokens",
            "token_dim",
            "num_layers",
            "num_attention_heads",
            "num_transformer_submodules",
            "prompt_tuning_init",
            "prompt_tuning_init_text",
            "tokenizer_name_or_path",
            "tokenizer_kwargs",
        ],
        Some("P_TUNING") => &[
            "num_virtual_tokens",
            "token_dim",
            "num_layers",
            "num_attention_heads",
            "num_transformer_submodules",
            "encoder_reparameterization_type",
            "encoder_hidden_size",
            "encoder_num_layers",
            "encoder_dropout",
        ],
        Some("PREFIX_TUNING") => &[
            "num_virtual_tokens",
            "token_dim",
            "num_layers",
            "num_attention_heads",
            "num_transformer_submodules",
            "encoder_hidden_size",
            "prefix_projection",
        ],
        _ => &[],
    }
}

/// Fields that change nothing here, whatever they hold: what a trainer did or where it ran, and settings of methods
/// that other fields would have to switch on.
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

/// What would be right instead, for the fields that people use.
const UNSUPPORTED_FIELD_ADVICE: [(&str, &str); 8] = [
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
const BASE_PRESERVING_INITS: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

/// # Errors
/// `Invalid` (`unsupported_adapter`) naming every field that asks for something else than the method with a linear classifier.
pub fn check_fields(peft_type: Option<&str>, config: &Map<String, Value>) -> Result<()> {
    let mut errors = ValidationErrors::default();
    for (field, value) in config {
        if let Some(message) = field_error(peft_type, field, value) {
            errors.push(message);
        }
    }
    errors.into_result("unsupported_adapter", "adapter_config.json asks for what this server does not support")
}

fn field_error(peft_type: Option<&str>, field: &str, value: &Value) -> Option<String> {
    match field {
        "bias" if is_default(value) || value == "none" => None,
        "bias" if peft_type == Some("LORA") && value == "lora_only" => None,
        "bias" => Some(format!("bias is {value}, expected \"none\" or, for LoRA, \"lora_only\"")),
        "save_projection" if *value == false => {
            Some("save_projection is false, and its random matrices cannot be drawn again here: train with save_projection=True".to_string())
        }
        "num_transformer_submodules" if !is_default(value) && *value != 1 => {
            Some(format!("num_transformer_submodules is {value}, expected 1: this base is an encoder"))
        }
        "init_lora_weights" => init_lora_weights_error(value),
        "modules_to_save" => modules_to_save_error(value),
        _ if COMMON_FIELDS.contains(&field) || method_fields(peft_type).contains(&field) => None,
        _ if IGNORED_FIELDS.contains(&field) || is_default(value) => None,
        _ => Some(match UNSUPPORTED_FIELD_ADVICE.iter().find(|(name, _)| *name == field) {
            Some((_, advice)) => format!("{field} is set: {advice}"),
            None => format!("{field} is set and not known here: leave it out or set it to null"),
        }),
    }
}

fn init_lora_weights_error(value: &Value) -> Option<String> {
    let is_supported = match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(word) => BASE_PRESERVING_INITS.contains(&word.to_lowercase().as_str()),
        _ => false,
    };
    let advice = "it changes the base's weights: convert the adapter to plain LoRA by passing \
                  path_initial_model_for_weight_conversion to save_pretrained";
    (!is_supported).then(|| format!("init_lora_weights is {value}, and {advice}"))
}

/// What a classification model's head may be called.
const HEAD_MODULE_NAMES: [&str; 3] = ["classifier", "pre_classifier", "score"];

fn modules_to_save_error(value: &Value) -> Option<String> {
    let unexpected: Vec<&Value> = match value {
        Value::Null => Vec::new(),
        Value::Array(names) => {
            names.iter().filter(|name| !HEAD_MODULE_NAMES.iter().any(|saved| *name == saved)).collect()
        }
        other => vec![other],
    };
    let first_unexpected = unexpected.first()?;
    Some(format!(
        "modules_to_save holds {first_unexpected}, expected the classifier alone: train with modules_to_save=[\"classifier\"]"
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

    fn error_text(config: Value) -> String {
        let error = check_fields(Some("LORA"), config.as_object().unwrap()).unwrap_err();
        assert_eq!(error.code(), "unsupported_adapter");
        error.to_string()
    }

    #[test]
    fn unsupported_fields_are_reported_with_advice() {
        let detail = error_text(json!({
            "bias": "all", "d_initial": 0.1,
            "layer_replication": [[0, 2]], "trainable_token_indices": [1], "megatron_config": {"a": 1},
            "modules_to_save": ["classifier", "pooler"], "init_lora_weights": "pissa", "x_new": 3,
        }));
        for words in [
            "bias is \"all\", expected \"none\"",
            "d_initial is set and not known here",
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
    fn peft_defaults_are_accepted() {
        let config = json!({
            "use_dora": false, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "loftq_config": {},
            "megatron_core": "megatron.core", "qalora_group_size": 16, "init_lora_weights": true, "kasa_config": null,
            "modules_to_save": ["classifier", "score"], "x_new": null, "y_new": [], "peft_version": "0.21.2",
        });
        check_fields(Some("LORA"), config.as_object().unwrap()).unwrap();
    }
}
