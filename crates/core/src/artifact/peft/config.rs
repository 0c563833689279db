//! Parses `adapter_config.json`: a method of PEFT, or a `peft_type` of null for a method that PEFT does not have.

use super::field_support;
use crate::adapter::PeftMethod;
use crate::adapter::peft::mapping::{FAN_IN_FAN_OUT, bool_field, invalid_config, positive_integer, string_field};
use crate::adapter::peft_methods::{PeftMethodEntry, peft_types};
use crate::adapter::tensor_spec::{CONFIG_FILE, ValidationErrors, unsupported_file};
use crate::artifact::base::BaseSummary;
use crate::error::Result;
use crate::model::MIN_SEQUENCE_LENGTH;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A parsed `adapter_config.json`, not yet compared with a base.
#[derive(Debug, Clone)]
pub struct Config {
    /// `None` for a method that PEFT does not have.
    pub method: Option<PeftMethod>,
    pub task_type: Option<String>,
    /// PEFT's `base_model_name_or_path`.
    pub base_model_name: Option<String>,
    /// From the additional field `labels` or `id2label`.
    pub labels: Option<Vec<String>>,
    /// Modules that are saved whole.
    pub modules_to_save: Vec<String>,
    pub trainable_tokens: TrainableTokens,
    /// Whether the adapter was trained on linear maps stored as `(input, output)`.
    fan_in_fan_out: bool,
    /// The base's dimensions in the configurations of prompt-learning methods, by field.
    model_dimensions: Vec<(&'static str, usize)>,
}

impl Config {
    /// # Errors
    /// `Invalid`: `unreadable_adapter` for a malformed file, `unsupported_adapter` for one that requires something that is not
    /// implemented.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| invalid_config(format!("it is not a JSON object ({error})")))?;
        let entry = method_entry(&fields)?;
        field_support::check_fields(entry, &fields)?;
        Ok(Self {
            method: entry.map(|entry| (entry.parse)(&fields)).transpose()?,
            task_type: string_field(&fields, "task_type")?,
            base_model_name: string_field(&fields, "base_model_name_or_path")?,
            labels: label_names(&fields)?,
            modules_to_save: modules_to_save(&fields)?,
            trainable_tokens: TrainableTokens::from_fields(&fields)?,
            fan_in_fan_out: bool_field(&fields, FAN_IN_FAN_OUT)?,
            model_dimensions: model_dimensions(&fields)?,
        })
    }

    /// Checks that the base has the declared dimensions, a context window for the virtual tokens, and linear maps in the declared
    /// layout. PEFT corrects a missing `fan_in_fan_out` itself, so false fits every base.
    ///
    /// # Errors
    /// `Invalid`: `other_base` naming every field that differs, or `unsupported_adapter`.
    pub fn check_base(&self, summary: &BaseSummary) -> Result<()> {
        let info = &summary.info;
        if self.fan_in_fan_out && !info.fan_in_fan_out() {
            let advice = "this base has linear layers only: train with fan_in_fan_out=False";
            return Err(unsupported_file(CONFIG_FILE, format!("fan_in_fan_out is set: {advice}")));
        }
        let mut errors = ValidationErrors::default();
        let accepts_kv_size = self.method.as_ref().is_some_and(PeftMethod::accepts_kv_size);
        for (field, declared) in &self.model_dimensions {
            let (expected, expected_kv) = match *field {
                "token_dim" => (info.hidden_size, summary.key_width()),
                "num_layers" => (info.layers, info.layers),
                _ => (info.attention_heads, summary.num_kv_heads()),
            };
            if *declared != expected && !(accepts_kv_size && *declared == expected_kv) {
                errors.push(format!("{field} is {declared}, this base has {expected}"));
            }
        }
        let max_virtual_tokens = info.max_tokens.saturating_sub(MIN_SEQUENCE_LENGTH);
        let count = self.method.as_ref().and_then(PeftMethod::num_virtual_tokens);
        if let Some(count) = count.filter(|count| *count > max_virtual_tokens) {
            errors
                .push(format!("num_virtual_tokens is {count}, this base has room for {max_virtual_tokens} and a text"));
        }
        errors.into_result("other_base", "adapter_config.json was made for a base of another size")
    }
}

/// The entry of the file's `peft_type`; `None` if that is null.
fn method_entry(fields: &Map<String, Value>) -> Result<Option<&'static PeftMethodEntry>> {
    match fields.get("peft_type") {
        None => Err(invalid_config(format!("peft_type is missing, expected one of {}", peft_types()))),
        Some(Value::Null) => Ok(None),
        Some(Value::String(found)) => PeftMethodEntry::find(found).map(Some).ok_or_else(|| {
            unsupported_file(CONFIG_FILE, format!("peft_type is {found:?}; this server takes {}", peft_types()))
        }),
        Some(_) => Err(invalid_config("peft_type must be a text")),
    }
}

/// Tokens whose embeddings are trained: of the input embeddings, or by names of modules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainableTokens {
    of_input: Vec<u32>,
    by_name: BTreeMap<String, Vec<u32>>,
}

impl TrainableTokens {
    fn from_fields(fields: &Map<String, Value>) -> Result<Self> {
        let invalid = || {
            invalid_config("trainable_token_indices must be a list of different token ids, or an object of such lists")
        };
        let ids = |value: &Value| -> Option<Vec<u32>> {
            let ids: Vec<u32> =
                value.as_array()?.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect::<Option<_>>()?;
            (ids.iter().collect::<BTreeSet<_>>().len() == ids.len()).then_some(ids)
        };
        match fields.get("trainable_token_indices") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::Object(modules)) => {
                let entry = |(name, value): (&String, &Value)| Some((name.clone(), ids(value)?));
                let by_name = modules.iter().map(entry).collect::<Option<_>>().ok_or_else(invalid)?;
                Ok(Self { by_name, ..Self::default() })
            }
            Some(list) => Ok(Self { of_input: ids(list).ok_or_else(invalid)?, ..Self::default() }),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// The tokens of a module.
    pub fn ids_of(&self, has_name: impl Fn(&str) -> bool, role: EmbeddingRole) -> Vec<u32> {
        let named = self.by_name.iter().find(|(name, _)| has_name(name)).map(|(_, ids)| ids.clone());
        match (named, role) {
            (Some(ids), _) => ids,
            (None, EmbeddingRole::Input) => self.of_input.clone(),
            (None, EmbeddingRole::Output) => Vec::new(),
        }
    }
}

/// End of the model at which a module with a row per token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingRole {
    Input,
    Output,
}

/// Names of the head's modules in transformers' classification models.
const HEAD_MODULE_NAMES: [&str; 3] = ["classifier", "pre_classifier", "score"];

/// Whether a name of `modules_to_save` is that of a classifier.
pub fn is_head_module(name: &str) -> bool {
    HEAD_MODULE_NAMES.contains(&name)
}

fn modules_to_save(fields: &Map<String, Value>) -> Result<Vec<String>> {
    match fields.get("modules_to_save") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(names)) => {
            let name = |name: &Value| name.as_str().map(str::to_string);
            names.iter().map(name).collect::<Option<_>>().ok_or_else(|| invalid_config(MODULES_TO_SAVE_RULE))
        }
        Some(_) => Err(invalid_config(MODULES_TO_SAVE_RULE)),
    }
}

const MODULES_TO_SAVE_RULE: &str = "modules_to_save must be a list of names";

/// The base's dimensions that the file declares.
fn model_dimensions(fields: &Map<String, Value>) -> Result<Vec<(&'static str, usize)>> {
    let present_fields =
        DIMENSION_FIELDS.iter().filter(|field| fields.get(**field).is_some_and(|value| !value.is_null()));
    present_fields.map(|field| Ok((*field, positive_integer(fields, field)?))).collect()
}

const DIMENSION_FIELDS: [&str; 3] = ["token_dim", "num_layers", "num_attention_heads"];

/// Parses `labels`, a list, or `id2label`, an object from "0", "1", … to names as in transformers' configs.
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
        invalid_config("labels must be a list of names, or id2label an object {\"0\": name, \"1\": name, …}")
    })?;
    Ok(Some(names.into_iter().map(str::to_string).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{self, peft::ModuleNaming};
    use crate::artifact::testing;
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
        let sites = testing::base_summary().sites;
        let method = config.method.unwrap().to_config(&sites, ModuleNaming::WithHead).unwrap();
        let adapter::Config::Lora(lora) = method else { panic!("a LoRA was expected") };
        assert_eq!((lora.rank, lora.alpha, lora.dropout, lora.rslora), (4, Some(8.0), 0.0, false));
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
