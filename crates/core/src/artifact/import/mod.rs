//! Import of an adapter from an archive or a folder, with the reason if it is rejected.
//!
//! An export of this software is restored as it was. A folder of PEFT or AdapterHub states neither labels nor the base's fingerprint:
//! the base's name and all shapes are checked, and a probe is recorded.
//! [`ImportRequest`] supplies what the folder does not state.

use crate::artifact::base::{BaseSummary, is_same_model_name};
use crate::artifact::manifest::validate_labels;
use crate::error::{Error, Result};
use crate::model::{MIN_SEQUENCE_LENGTH, Pooling};
use crate::task;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use hub::fetch_from_hub;
pub use upload::{ImportSource, import, import_source};

mod adapterhub;
mod hub;
mod peft;
mod task_inference;
mod upload;

/// What a folder of PEFT or AdapterHub does not state. Exports of this software state all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportRequest {
    /// Labels in the order of the head's rows; by default from `id2label` in adapter_config.json, otherwise `LABEL_0`, `LABEL_1`, …
    pub labels: Option<Vec<String>>,
    /// The base that the adapter was trained on, if adapter_config.json does not name it or names it differently.
    pub base: Option<String>,
    /// Pooling of the head's input; `cls` for transformers' classification models, where it is the default.
    pub pooling: Option<Pooling>,
    /// Tokens of an input; longer ones are truncated. By default the context window of the base.
    pub max_length: Option<usize>,
}

/// Checks that the adapter was made for this base, by name. `config_base` is the value of `field` in the configuration.
///
/// # Errors
/// `Invalid` (`other_base`).
pub fn check_base_name(
    config_base: Option<&str>,
    field: &str,
    request: &ImportRequest,
    summary: &BaseSummary,
) -> Result<()> {
    let server_base = &summary.info.name;
    let mismatch = |detail: String| Err(Error::invalid("other_base", detail));
    match (&request.base, config_base) {
        (Some(requested), _) if is_same_model_name(requested, server_base) => Ok(()),
        (Some(requested), _) => mismatch(format!(
            "the request says that the adapter was made for {requested:?}, this server runs {server_base:?}"
        )),
        (None, Some(named)) if is_same_model_name(named, server_base) => Ok(()),
        (None, Some(config_name)) => mismatch(format!(
            "adapter_config.json names {config_name:?} as its base, this server runs {server_base:?}: if they are the \
             same weights, say so by \"base\": {server_base:?} in the request"
        )),
        (None, None) => mismatch(format!(
            "adapter_config.json names no base model ({field}): if it was trained on the base of this server, say so by \
             \"base\": {server_base:?} in the request"
        )),
    }
}

/// The labels of a classifier: from the request, the configuration, or `LABEL_0`, `LABEL_1`, …
///
/// # Errors
/// `Invalid`: `invalid_import` or `unreadable_adapter`.
pub fn resolve_labels(
    config_labels: Option<Vec<String>>,
    request: &ImportRequest,
    head_rows: usize,
) -> Result<Vec<String>> {
    let (labels, code) = match (&request.labels, config_labels) {
        (Some(requested), _) => (requested.clone(), "invalid_import"),
        (None, Some(from_config)) => (from_config, "unreadable_adapter"),
        (None, None) => ((0..head_rows).map(|row| format!("LABEL_{row}")).collect(), "unreadable_adapter"),
    };
    let invalid_labels = |reason| Error::invalid(code, format!("the adapter's labels cannot be used: {reason}"));
    validate_labels(&labels, head_rows).map_err(invalid_labels)?;
    Ok(labels)
}

/// Checks that the request gives no labels for a task that has none.
///
/// # Errors
/// `Invalid` (`invalid_import`).
pub fn check_no_labels(request: &ImportRequest, task: &task::Config) -> Result<()> {
    match &request.labels {
        Some(_) => {
            let task = task.type_name();
            let detail = format!("the adapter's task is {task}, which has no labels: leave labels out of the request");
            Err(Error::invalid("invalid_import", detail))
        }
        None => Ok(()),
    }
}

/// The longest input in tokens: from the request, or what the base can read after the virtual tokens.
///
/// # Errors
/// `Invalid` (`invalid_import`).
pub fn resolve_max_length(request: &ImportRequest, summary: &BaseSummary, virtual_tokens: usize) -> Result<usize> {
    let limit = summary.max_input_tokens(virtual_tokens);
    match request.max_length.unwrap_or(limit) {
        length if (MIN_SEQUENCE_LENGTH..=limit).contains(&length) => Ok(length),
        length => {
            let detail = format!("max_length is {length}, expected {MIN_SEQUENCE_LENGTH} to {limit}");
            Err(Error::invalid("invalid_import", detail))
        }
    }
}

/// An adapter that is valid but cannot be used here (`unsupported_adapter`).
pub fn unsupported_adapter(reason: &str) -> Error {
    Error::invalid("unsupported_adapter", format!("the adapter cannot be used here: {reason}"))
}
