//! Reading `adapter_config.json`: a method of PEFT's with a linear classifier, or one that PEFT has no type for.
//!
//! Knows nothing of the base: whether names and shapes fit it is asked elsewhere.

use super::field_support;
use super::method::{Method, PEFT_TYPES};
use crate::artifact::BaseSummary;
use crate::artifact::validation_errors::ValidationErrors;
use crate::error::{Error, Result};
use crate::model::MIN_SEQUENCE_LENGTH;
use serde_json::{Map, Value};

/// What a config says.
#[derive(Debug, Clone)]
pub struct Config {
    /// `None`: one of our own methods, for which PEFT has no type.
    pub method: Option<Method>,
    pub task_type: Option<String>,
    /// PEFT's `base_model_name_or_path`.
    pub base_model_name: Option<String>,
    /// From an extra key, `id2label` or `labels`.
    pub labels: Option<Vec<String>>,
    /// Whether it was trained on maps that are kept as (input, output).
    fan_in_fan_out: bool,
    /// What prompt methods say of the base's size, by field.
    model_dimensions: Vec<(&'static str, usize)>,
}

impl Config {
    /// # Errors
    /// `Invalid`: `unreadable_adapter` where it is not such a file, `unsupported_adapter` where it asks for something
    /// that this server does not do.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| invalid_config(format!("it is not a JSON object ({error})")))?;
        let peft_type = match fields.get("peft_type") {
            None => {
                return Err(invalid_config(format!("peft_type is missing, expected one of {}", PEFT_TYPES.join(", "))));
            }
            Some(Value::Null) => None,
            Some(Value::String(word)) => Some(word.as_str()),
            Some(_) => return Err(invalid_config("peft_type must be a text".to_string())),
        };
        if let Some(unknown) = peft_type.filter(|word| !PEFT_TYPES.contains(word)) {
            return Err(unsupported_method(unknown));
        }
        field_support::check_fields(peft_type, &fields)?;
        Ok(Self {
            method: peft_type.map(|word| Method::parse(word, &fields)).transpose()?,
            task_type: string_field(&fields, "task_type")?,
            base_model_name: string_field(&fields, "base_model_name_or_path")?,
            labels: label_names(&fields)?,
            fan_in_fan_out: bool_field(&fields, field_support::FAN_IN_FAN_OUT)?,
            model_dimensions: model_dimensions(&fields)?,
        })
    }

    /// Whether the base is as large as the config says, reads its virtual tokens, and keeps its maps as it says; PEFT itself
    /// sets right what was left out for a base of the other kind.
    ///
    /// # Errors
    /// `Invalid`: `other_base` naming every field that differs, or `unsupported_adapter`.
    pub fn check_base(&self, summary: &BaseSummary) -> Result<()> {
        let info = &summary.info;
        if self.fan_in_fan_out && !info.fan_in_fan_out() {
            let advice = "this base has linear layers only: train with fan_in_fan_out=False";
            let detail = format!("adapter_config.json: fan_in_fan_out is set: {advice}");
            return Err(Error::invalid("unsupported_adapter", detail));
        }
        let mut errors = ValidationErrors::default();
        for (field, declared) in &self.model_dimensions {
            let (expected, expected_kv) = match *field {
                "token_dim" => (info.hidden_size, summary.key_width()),
                "num_layers" => (info.layers, info.layers),
                _ => (info.attention_heads, summary.num_kv_heads()),
            };
            let matches_kv = matches!(self.method, Some(Method::PrefixTuning(_))) && *declared == expected_kv;
            if *declared != expected && !matches_kv {
                errors.push(format!("{field} is {declared}, this base has {expected}"));
            }
        }
        if let Some(Method::PromptTuning(count) | Method::PTuning(count) | Method::PrefixTuning(count)) = self.method
            && count > info.max_tokens.saturating_sub(MIN_SEQUENCE_LENGTH)
        {
            let max_virtual_tokens = info.max_tokens.saturating_sub(MIN_SEQUENCE_LENGTH);
            errors
                .push(format!("num_virtual_tokens is {count}, this base has room for {max_virtual_tokens} and a text"));
        }
        errors.into_result("other_base", "adapter_config.json was made for a base of another size")
    }
}

/// The base's size is written by prompt methods alone, and by them not always.
fn model_dimensions(fields: &Map<String, Value>) -> Result<Vec<(&'static str, usize)>> {
    let present_fields =
        DIMENSION_FIELDS.iter().filter(|field| fields.get(**field).is_some_and(|value| !value.is_null()));
    present_fields.map(|field| Ok((*field, positive_integer(fields, field)?))).collect()
}

const DIMENSION_FIELDS: [&str; 3] = ["token_dim", "num_layers", "num_attention_heads"];

/// A whole number above 0.
pub fn positive_integer(fields: &Map<String, Value>, field: &str) -> Result<usize> {
    let number = fields.get(field).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| invalid_config(format!("{field} must be a positive integer")))
}

pub fn bool_field(fields: &Map<String, Value>, field: &str) -> Result<bool> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(invalid_config(format!("{field} must be true or false"))),
    }
}

pub fn f64_field(fields: &Map<String, Value>, field: &str) -> Result<Option<f64>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| invalid_config(format!("{field} must be a number"))),
    }
}

fn string_field(fields: &Map<String, Value>, field: &str) -> Result<Option<String>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid_config(format!("{field} must be a text"))),
    }
}

/// `labels` as a list, or `id2label` as transformers' configs have it: an object from the numbers 0, 1, … to names.
fn label_names(fields: &Map<String, Value>) -> Result<Option<Vec<String>>> {
    let names: Option<Vec<&str>> = match (fields.get("labels"), fields.get("id2label")) {
        (Some(Value::Array(items)), _) => items.iter().map(Value::as_str).collect(),
        (None | Some(Value::Null), Some(Value::Object(names))) => {
            (0..names.len()).map(|index| names.get(&index.to_string())?.as_str()).collect()
        }
        (None | Some(Value::Null), None | Some(Value::Null)) => return Ok(None),
        _ => None,
    };
    let names = names.ok_or_else(|| {
        invalid_config(
            "labels must be a list of names, or id2label an object {\"0\": name, \"1\": name, …}".to_string(),
        )
    })?;
    Ok(Some(names.into_iter().map(str::to_string).collect()))
}

fn unsupported_method(found: &str) -> Error {
    let detail = format!("adapter_config.json: peft_type is {found:?}; this server takes {}", PEFT_TYPES.join(", "));
    Error::invalid("unsupported_adapter", detail)
}

pub fn invalid_config(what: String) -> Error {
    Error::invalid("unreadable_adapter", format!("adapter_config.json: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse_json(config: Value) -> Result<Config> {
        Config::parse(config.to_string().as_bytes())
    }

    #[test]
    fn minimal_config_is_accepted() {
        let config = parse_json(json!({
            "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]
        }));
        let config = config.unwrap();
        let Some(Method::Lora(lora)) = config.method else { panic!("a LoRA was expected") };
        assert_eq!((lora.rank, lora.alpha, lora.dropout, lora.use_rslora), (4, 8.0, 0.0, false));
        assert_eq!((config.task_type.as_deref(), config.base_model_name, config.labels), (Some("SEQ_CLS"), None, None));
    }

    #[test]
    fn id2label_is_ordered_by_number() {
        let with_id2label = |names: Value| parse_json(json!({"peft_type": null, "id2label": names}));
        let many: Map<String, Value> = (0..12).map(|index| (index.to_string(), json!(format!("l{index}")))).collect();
        let labels = with_id2label(json!(many)).unwrap().labels.unwrap();
        assert_eq!((labels[2].as_str(), labels[11].as_str()), ("l2", "l11"));
        assert_eq!(with_id2label(json!({"1": "a"})).unwrap_err().code(), "unreadable_adapter");
    }

    #[test]
    fn invalid_values_are_rejected_by_field() {
        let valid = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]});
        let cases = [
            ("r", json!(0), "unreadable_adapter"),
            ("r", json!(1.5), "unreadable_adapter"),
            ("r", json!(-1), "unreadable_adapter"),
            ("lora_alpha", json!("8"), "unreadable_adapter"),
            ("lora_dropout", json!(1.0), "unreadable_adapter"),
            ("use_rslora", json!("yes"), "unreadable_adapter"),
            ("task_type", json!(3), "unreadable_adapter"),
            ("labels", json!(["a", 1]), "unreadable_adapter"),
            ("peft_type", json!("LOHA"), "unsupported_adapter"),
            ("peft_type", json!(3), "unreadable_adapter"),
            ("use_dora", json!(1), "unreadable_adapter"),
            ("rank_pattern", json!({"query": 0}), "unreadable_adapter"),
            ("alpha_pattern", json!([8]), "unreadable_adapter"),
        ];
        for (field, value, code) in cases {
            let mut config = valid.clone();
            config[field] = value;
            let error = parse_json(config).unwrap_err();
            assert_eq!(error.code(), code, "{field}");
            assert!(error.to_string().contains(field), "{error} should name {field}");
        }
    }

    #[test]
    fn malformed_config_is_rejected() {
        for bytes in [b"".as_slice(), b"[]", b"{\"peft_type\"", b"{}", b"\xff\xfe"] {
            assert_eq!(Config::parse(bytes).unwrap_err().code(), "unreadable_adapter");
        }
    }
}
