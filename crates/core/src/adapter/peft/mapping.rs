//! The traits that map a method to PEFT's `adapter_config.json` and back, and readers of its fields. An absent field and `null`
//! mean PEFT's default.

use super::minimal_targets::minimal_target_modules;
use super::naming::ModuleNaming;
use crate::adapter::tensor_spec::{CONFIG_FILE, invalid_file};
use crate::error::{Error, Result};
use crate::model::{BaseModelInfo, SiteInfo};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

/// Fields of an `adapter_config.json` by name.
pub type ConfigFields = BTreeMap<&'static str, Value>;

/// Writes a method's part of an `adapter_config.json`.
pub trait PeftMapping {
    /// PEFT's `peft_type`; `None` if PEFT cannot express these settings.
    fn peft_type(&self, sites: &[SiteInfo]) -> Option<&'static str>;

    /// The fields of the method.
    fn config_fields(&self, context: &ExportContext) -> ConfigFields;
}

/// What the fields of a method depend on besides its settings.
pub struct ExportContext<'a> {
    pub info: &'a BaseModelInfo,
    /// The sites of the base under the task's pooling.
    pub sites: &'a [SiteInfo],
    /// Every site of the base.
    pub all_sites: &'a [SiteInfo],
    /// Paths of transformers' model that are no sites of the base, which a rule for target modules must not match.
    pub other_paths: &'a [&'a str],
    pub naming: ModuleNaming,
}

impl ExportContext<'_> {
    /// The value of `target_modules` that selects exactly these sites.
    pub fn target_modules(&self, adapted_sites: &[&SiteInfo]) -> Value {
        json!(minimal_target_modules(self.all_sites, self.other_paths, adapted_sites, self.naming))
    }

    /// The paths of sites, as this file writes them.
    pub fn paths<'a>(&self, sites: impl IntoIterator<Item = &'a SiteInfo>) -> Vec<&'a str> {
        sites.into_iter().map(|info| self.naming.module_path(info)).collect()
    }
}

/// A method's part of a parsed `adapter_config.json`, independent of the base.
pub trait PeftFields: Debug + Sized {
    /// The method's own configuration.
    type Config;
    const PEFT_TYPE: &'static str;
    /// Fields that are read, and fields that affect the training only.
    const ACCEPTED_FIELDS: &'static [&'static str];

    /// The error message for a value of one of [`Self::ACCEPTED_FIELDS`] that is not implemented.
    fn value_error(field: &str, value: &Value) -> Option<String>;

    /// # Errors
    /// `Invalid` (`unreadable_adapter`, `unsupported_adapter`) naming the field.
    fn parse(fields: &Map<String, Value>) -> Result<Self>;

    /// The method with its target modules resolved on the base's sites.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_adapter`) if the rules select a module that the method does not adapt.
    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Self::Config>;

    /// The fields that contradict the configuration in `espalier.json`. Target modules are compared by the sites that they select.
    ///
    /// # Errors
    /// As [`Self::to_config`].
    fn differing_fields(
        &self,
        config: &Self::Config,
        sites: &[SiteInfo],
        naming: ModuleNaming,
    ) -> Result<Vec<&'static str>>;

    /// The number of virtual tokens; `None` if the method has none.
    fn num_virtual_tokens(&self) -> Option<usize>;

    /// Whether `token_dim` and `num_attention_heads` may be those of keys and values.
    fn accepts_kv_size(&self) -> bool;
}

/// Whether two lists, in the base's order, have the same sites.
pub fn are_same_sites(one: &[&SiteInfo], other: &[&SiteInfo]) -> bool {
    one.iter().map(|info| info.site).eq(other.iter().map(|info| info.site))
}

/// The names of the fields for which the condition does not hold.
pub fn fields_that_differ<const N: usize>(is_equal: [(&'static str, bool); N]) -> Vec<&'static str> {
    is_equal.into_iter().filter(|(_, equal)| !equal).map(|(field, _)| field).collect()
}

/// Whether the base's linear maps are stored as `(input, output)`.
pub const FAN_IN_FAN_OUT: &str = "fan_in_fan_out";

/// A malformed `adapter_config.json`.
pub fn invalid_config(reason: impl Display) -> Error {
    invalid_file(CONFIG_FILE, reason)
}

/// A required integer above 0.
pub fn positive_integer(fields: &Map<String, Value>, field: &str) -> Result<usize> {
    let number = fields.get(field).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| invalid_config(format!("{field} must be a positive integer")))
}

/// A boolean; false by default.
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

pub fn string_field(fields: &Map<String, Value>, field: &str) -> Result<Option<String>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid_config(format!("{field} must be a text"))),
    }
}

/// A dropout rate; 0 by default.
pub fn dropout_field(fields: &Map<String, Value>, field: &str) -> Result<f64> {
    let dropout = f64_field(fields, field)?.unwrap_or(0.0);
    match (0.0..1.0).contains(&dropout) {
        true => Ok(dropout),
        false => Err(invalid_config(format!("{field} must be at least 0 and less than 1"))),
    }
}

/// An object from names of modules to numbers above 0; empty by default.
pub fn pattern_field<T>(
    fields: &Map<String, Value>,
    field: &str,
    parse_value: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>> {
    let invalid_pattern =
        || invalid_config(format!("{field} must be an object from names of modules to numbers above 0"));
    match fields.get(field) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => {
            let parse_entry = |(name, value): (&String, &Value)| Some((name.clone(), parse_value(value)?));
            entries.iter().map(parse_entry).collect::<Option<_>>().ok_or_else(invalid_pattern)
        }
        Some(_) => Err(invalid_pattern()),
    }
}

/// Whether a field has a value that requests nothing: null, false, zero or empty.
pub fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// The message for a `bias` that is not implemented.
pub fn unsupported_bias(value: &Value) -> String {
    format!("bias is {value}, expected \"none\" or, for LoRA, \"lora_only\"")
}
