//! The traits that map a method to PEFT's `adapter_config.json` and back.

use super::minimal_targets::minimal_target_modules;
use super::naming::ModuleNaming;
use crate::error::Result;
use crate::model::{BaseModelInfo, SiteInfo};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;

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

    /// The fields that contradict the configuration in `espalier.json`.
    fn differing_fields(&self, config: &Self::Config) -> Vec<&'static str>;

    /// The number of virtual tokens; `None` if the method has none.
    fn num_virtual_tokens(&self) -> Option<usize>;

    /// Whether `token_dim` and `num_attention_heads` may be those of keys and values.
    fn accepts_kv_size(&self) -> bool;
}

/// The names of the fields for which the condition does not hold.
pub fn fields_that_differ<const N: usize>(is_equal: [(&'static str, bool); N]) -> Vec<&'static str> {
    is_equal.into_iter().filter(|(_, equal)| !equal).map(|(field, _)| field).collect()
}
