//! Names of classes in the metadata that the `datasets` library writes into Parquet files.

use crate::dataset::diagnostics::{self, Diagnostic, quote, quote_list};
use parquet::file::metadata::KeyValue;
use serde_json::Value;
use std::collections::BTreeMap;

const METADATA_KEY: &str = "huggingface";

/// Names of the classes by column.
#[derive(Default)]
pub(super) struct ClassLabels(BTreeMap<String, Vec<String>>);

impl ClassLabels {
    /// Reads `{"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}`; other metadata has no names.
    pub fn from_metadata(metadata: &[KeyValue]) -> Self {
        let json = metadata.iter().find(|entry| entry.key == METADATA_KEY).and_then(|entry| entry.value.as_deref());
        let json: Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let Some(features) = json["info"]["features"].as_object() else { return Self::default() };
        let names = |feature: &Value| {
            let feature = if feature["feature"].is_object() { &feature["feature"] } else { feature };
            let names = feature["names"].as_array().filter(|_| feature["_type"] == "ClassLabel")?;
            names.iter().map(|name| name.as_str().map(str::to_string)).collect::<Option<Vec<_>>>()
        };
        Self(features.iter().filter_map(|(column, feature)| Some((column.clone(), names(feature)?))).collect())
    }

    /// Names of a column, the first that of class 0.
    pub fn names(&self, column: &str) -> Option<&[String]> {
        self.0.get(column).map(Vec::as_slice)
    }

    /// One warning per column that says how its numbers are read.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let warning = |(column, names): (&String, &Vec<String>)| {
            let names = quote_list(names.iter().map(String::as_str));
            let message = format!(
                "the numbers of {} are read as the names that the file gives them, from 0 on: {names}",
                quote(column)
            );
            Diagnostic::new(diagnostics::CLASS_NAMES, message)
        };
        self.0.iter().map(warning).collect()
    }
}
