//! Reading `adapter_config.json`: a method of PEFT's with a linear classifier, or one that PEFT has no type for.
//!
//! Knows nothing of the base: whether names and shapes fit it is asked elsewhere.

use super::methods::{Method, TYPES};
use super::supported;
use crate::artifact::Outline;
use crate::artifact::faults::Faults;
use crate::error::{Error, Result};
use crate::model::tokenizer::SHORTEST;
use serde_json::{Map, Value};

/// What a config says.
#[derive(Debug, Clone)]
pub struct Config {
    /// `None`: one of our own methods, for which PEFT has no type.
    pub method: Option<Method>,
    pub task_type: Option<String>,
    /// PEFT's `base_model_name_or_path`.
    pub base: Option<String>,
    /// From an extra key, `id2label` or `labels`.
    pub labels: Option<Vec<String>>,
    /// Whether it was trained on maps that are kept as (input, output).
    turned: bool,
    /// What prompt methods say of the base's size, by field.
    sizes: Vec<(&'static str, usize)>,
}

impl Config {
    /// # Errors
    /// `Invalid`: `unreadable_adapter` where it is not such a file, `unsupported_adapter` where it asks for something
    /// that this server does not do.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| unreadable(format!("it is not a JSON object ({error})")))?;
        let peft_type = match fields.get("peft_type") {
            None => return Err(unreadable(format!("peft_type is missing, expected one of {}", TYPES.join(", ")))),
            Some(Value::Null) => None,
            Some(Value::String(word)) => Some(word.as_str()),
            Some(_) => return Err(unreadable("peft_type must be a text".to_string())),
        };
        if let Some(unknown) = peft_type.filter(|word| !TYPES.contains(word)) {
            return Err(other_method(unknown));
        }
        supported::check(peft_type, &fields)?;
        Ok(Self {
            method: peft_type.map(|word| Method::read(word, &fields)).transpose()?,
            task_type: text(&fields, "task_type")?,
            base: text(&fields, "base_model_name_or_path")?,
            labels: labels(&fields)?,
            turned: flag(&fields, supported::TURNED)?,
            sizes: sizes(&fields)?,
        })
    }

    /// Whether the base is as large as the config says, reads its virtual tokens, and keeps its maps as it says; PEFT itself
    /// sets right what was left out for a base of the other kind.
    ///
    /// # Errors
    /// `Invalid`: `other_base` naming every field that differs, or `unsupported_adapter`.
    pub fn check_base(&self, outline: &Outline) -> Result<()> {
        let info = &outline.info;
        if self.turned && !info.fan_in_fan_out() {
            let advice = "this base has linear layers only: train with fan_in_fan_out=False";
            let detail = format!("adapter_config.json: fan_in_fan_out is set: {advice}");
            return Err(Error::invalid("unsupported_adapter", detail));
        }
        let mut faults = Faults::default();
        for (field, said) in &self.sizes {
            let (ours, of_keys) = match *field {
                "token_dim" => (info.hidden_size, outline.key_width()),
                "num_layers" => (info.layers, info.layers),
                _ => (info.attention_heads, outline.key_heads()),
            };
            let is_of_keys = matches!(self.method, Some(Method::PrefixTuning(_))) && *said == of_keys;
            if *said != ours && !is_of_keys {
                faults.add(format!("{field} is {said}, this base has {ours}"));
            }
        }
        if let Some(Method::PromptTuning(count) | Method::PTuning(count) | Method::PrefixTuning(count)) = self.method
            && count > info.max_tokens.saturating_sub(SHORTEST)
        {
            let most = info.max_tokens.saturating_sub(SHORTEST);
            faults.add(format!("num_virtual_tokens is {count}, this base has room for {most} and a text"));
        }
        faults.finish("other_base", "adapter_config.json was made for a base of another size")
    }
}

/// The base's size is written by prompt methods alone, and by them not always.
fn sizes(fields: &Map<String, Value>) -> Result<Vec<(&'static str, usize)>> {
    let said = SIZES.iter().filter(|field| fields.get(**field).is_some_and(|value| !value.is_null()));
    said.map(|field| Ok((*field, whole(fields, field)?))).collect()
}

const SIZES: [&str; 3] = ["token_dim", "num_layers", "num_attention_heads"];

/// A whole number above 0.
pub fn whole(fields: &Map<String, Value>, field: &str) -> Result<usize> {
    let number = fields.get(field).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| unreadable(format!("{field} must be a positive integer")))
}

pub fn flag(fields: &Map<String, Value>, field: &str) -> Result<bool> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(unreadable(format!("{field} must be true or false"))),
    }
}

pub fn number(fields: &Map<String, Value>, field: &str) -> Result<Option<f64>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| unreadable(format!("{field} must be a number"))),
    }
}

fn text(fields: &Map<String, Value>, field: &str) -> Result<Option<String>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(unreadable(format!("{field} must be a text"))),
    }
}

/// `labels` as a list, or `id2label` as transformers' configs have it: an object from the numbers 0, 1, … to names.
fn labels(fields: &Map<String, Value>) -> Result<Option<Vec<String>>> {
    let names: Option<Vec<&str>> = match (fields.get("labels"), fields.get("id2label")) {
        (Some(Value::Array(items)), _) => items.iter().map(Value::as_str).collect(),
        (None | Some(Value::Null), Some(Value::Object(names))) => {
            (0..names.len()).map(|index| names.get(&index.to_string())?.as_str()).collect()
        }
        (None | Some(Value::Null), None | Some(Value::Null)) => return Ok(None),
        _ => None,
    };
    let names = names.ok_or_else(|| {
        unreadable("labels must be a list of names, or id2label an object {\"0\": name, \"1\": name, …}".to_string())
    })?;
    Ok(Some(names.into_iter().map(str::to_string).collect()))
}

fn other_method(found: &str) -> Error {
    let detail = format!("adapter_config.json: peft_type is {found:?}; this server takes {}", TYPES.join(", "));
    Error::invalid("unsupported_adapter", detail)
}

pub fn unreadable(what: String) -> Error {
    Error::invalid("unreadable_adapter", format!("adapter_config.json: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<Config> {
        Config::read(config.to_string().as_bytes())
    }

    #[test]
    fn a_minimal_config_is_enough() {
        let config = read(json!({
            "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]
        }));
        let config = config.unwrap();
        let Some(Method::Lora(lora)) = config.method else { panic!("a LoRA was expected") };
        assert_eq!((lora.rank, lora.alpha, lora.dropout, lora.rslora), (4, 8.0, 0.0, false));
        assert_eq!((config.task_type.as_deref(), config.base, config.labels), (Some("SEQ_CLS"), None, None));
    }

    #[test]
    fn labels_come_from_id2label_in_the_order_of_its_numbers() {
        let named = |names: Value| read(json!({"peft_type": null, "id2label": names}));
        let many: Map<String, Value> = (0..12).map(|index| (index.to_string(), json!(format!("l{index}")))).collect();
        let labels = named(json!(many)).unwrap().labels.unwrap();
        assert_eq!((labels[2].as_str(), labels[11].as_str()), ("l2", "l11"));
        assert_eq!(named(json!({"1": "a"})).unwrap_err().code(), "unreadable_adapter");
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        let good = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]});
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
            let mut config = good.clone();
            config[field] = value;
            let error = read(config).unwrap_err();
            assert_eq!(error.code(), code, "{field}");
            assert!(error.to_string().contains(field), "{error} should name {field}");
        }
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for bytes in [b"".as_slice(), b"[]", b"{\"peft_type\"", b"{}", b"\xff\xfe"] {
            assert_eq!(Config::read(bytes).unwrap_err().code(), "unreadable_adapter");
        }
    }
}
