//! AdapterHub's `adapter_config.json`: an envelope around the object `config`, the bottleneck's settings.

use crate::adapter::bottleneck;
use crate::adapter::method::Method;
use crate::adapter::tensor_spec::{CONFIG_FILE, invalid_file, unsupported_file};
use crate::artifact::base::BaseSummary;
use crate::error::{Context, Error, Result};
use crate::model::{BaseModelInfo, SiteInfo};
use serde_json::{Map, Value, json};

/// A parsed `adapter_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The adapter's name in the keys of its tensors.
    pub name: String,
    /// The name of the base.
    pub model_name: Option<String>,
    pub method: bottleneck::Config,
}

impl Config {
    /// # Errors
    /// `Invalid`: `unreadable_adapter`, `unsupported_adapter` naming every setting that is not implemented, `other_base` for a base of
    /// another size or architecture.
    pub fn parse(fields: &Map<String, Value>, summary: &BaseSummary) -> Result<Self> {
        let string_field = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_string);
        let name = string_field("name").ok_or_else(|| invalid_file(CONFIG_FILE, "name must be a text"))?;
        check_base(fields, summary)?;
        let settings = config_object(CONFIG_FILE, fields)?;
        let method = bottleneck::Config::from_adapterhub(settings, summary.info.layers)?;
        Ok(Self { name, model_name: string_field("model_name"), method })
    }

    /// # Errors
    /// `Invalid` (`unreadable_adapter`) naming the setting that does not fit these sites.
    pub fn check_sites(&self, summary: &BaseSummary, sites: &[SiteInfo]) -> Result<()> {
        let resolved = self.method.resolve(&summary.info, sites);
        resolved.map(drop).map_err(|error| invalid_file(CONFIG_FILE, error))
    }
}

fn check_base(fields: &Map<String, Value>, summary: &BaseSummary) -> Result<()> {
    let info = &summary.info;
    let expected = [("hidden_size", json!(info.hidden_size)), ("model_type", json!(info.model_type))];
    for (field, expected_value) in expected {
        if let Some(found) = fields.get(field).filter(|found| **found != expected_value) {
            let detail = format!("{CONFIG_FILE}: {field} is {found}, this server's base has {expected_value}");
            return Err(Error::invalid("other_base", detail));
        }
    }
    let unsupported = format!("a base of the type {} takes none in AdapterHub's form here", info.model_type);
    model_class(info).map(drop).map_err(|_| unsupported_file(CONFIG_FILE, unsupported))
}

/// The class of `adapters` for a base with adapter and head.
///
/// # Errors
/// `Invalid` (`unsupported_format`) if there is none, or one with other tensor keys.
pub fn model_class(info: &BaseModelInfo) -> Result<&'static str> {
    match info.model_type.as_str() {
        "bert" => Ok("BertAdapterModel"),
        "roberta" => Ok("RobertaAdapterModel"),
        "xlm-roberta" => Ok("XLMRobertaAdapterModel"),
        other => {
            Err(unsupported_format(&format!("a base of the type {other} here; it has bert, roberta and xlm-roberta")))
        }
    }
}

pub fn parse_object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|error| invalid_file(file, format!("it is not a JSON object ({error})")))
}

/// The object under `config`.
pub fn config_object<'a>(file: &str, fields: &'a Map<String, Value>) -> Result<&'a Map<String, Value>> {
    fields.get("config").and_then(Value::as_object).ok_or_else(|| {
        invalid_file(file, "config must be the object of all settings, as save_adapter of adapters 1.x writes it")
    })
}

/// Serializes with sorted keys, as `adapters` writes them.
pub fn to_sorted_json(mut value: Value) -> Result<Vec<u8>> {
    value.sort_all_objects();
    let mut bytes = serde_json::to_vec_pretty(&value).context("writing an AdapterHub config")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// An adapter that AdapterHub's format cannot express.
pub fn unsupported_format(what: &str) -> Error {
    let detail = format!("AdapterHub's form has nothing for {what}: download it as peft");
    Error::invalid("unsupported_format", detail)
}
