//! AdapterHub's folder, as the `adapters` package saves and loads it: bottleneck adapters with a head on the first token.
//!
//! Four files: what the adapter is and its tensors, and the same of the head. What AdapterHub means but this server cannot do is
//! refused by name, and so is what this server does but AdapterHub has no word for. Knows nothing of zips.

mod config;
mod head;
mod keys;

use super::validation_errors::ValidationErrors;
use super::{Artifact, BaseSummary, safetensors};
use crate::adapter;
use crate::error::{Context, Error, Result};
use espalier_tensor::Tensor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub use config::Config;
pub use head::ClassificationHead;

/// Beside it lies an `adapter_config.json`, as PEFT calls it too.
pub const WEIGHTS_FILE: &str = "adapter.safetensors";
pub const HEAD_CONFIG_FILE: &str = "head_config.json";
pub const HEAD_WEIGHTS_FILE: &str = "model_head.safetensors";
/// What `adapters` writes where it is not asked for safetensors.
pub const PICKLE_FILES: [&str; 2] = ["pytorch_adapter.bin", "pytorch_model_head.bin"];

type TensorMap = BTreeMap<String, Tensor>;

/// The bytes of the four files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterHubFiles {
    pub config: Vec<u8>,
    pub weights: Vec<u8>,
    pub head_config: Vec<u8>,
    pub head_weights: Vec<u8>,
}

/// What the files say: the adapter's tensors and the head's under our names.
pub struct ParsedAdapter {
    pub config: Config,
    pub head: ClassificationHead,
    pub weights: TensorMap,
}

impl AdapterHubFiles {
    /// `name` is what the adapter is called inside; it may be any text.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_format`) where AdapterHub has no word for the adapter.
    pub fn from_artifact(artifact: &Artifact, summary: &BaseSummary, name: &str) -> Result<Self> {
        let manifest = &artifact.manifest;
        let adapter::Config::Bottleneck(method) = &manifest.method else {
            let method = manifest.method.name();
            return Err(unsupported_format(&format!(
                "the method {method}, of which only bottleneck is written in this form"
            )));
        };
        let name = sanitized_name(name);
        let sites = summary.sites_for(summary.pooling(&manifest.task));
        let model_class = keys::model_class(&summary.info)?;
        let head = ClassificationHead::from_manifest(manifest, summary)?;
        let envelope = |config: Value| {
            json!({
                "config": config,
                "hidden_size": summary.info.hidden_size,
                "model_class": model_class,
                "model_name": manifest.base.name,
                "model_type": summary.info.model_type,
                "name": name,
                "version": "adapters.1.3.0",
            })
        };
        let write_tensors = |entries: Vec<TensorSpec>| {
            let to_keyed_tensor = |entry: TensorSpec| Some((entry.key, artifact.weights.get(&entry.name)?.clone()));
            safetensors::write(&entries.into_iter().filter_map(to_keyed_tensor).collect())
        };
        Ok(Self {
            config: to_sorted_json(&envelope(config::settings_json(method, sites)))?,
            weights: write_tensors(keys::bottleneck_specs(method, sites, &name))?,
            head_config: to_sorted_json(&envelope(head.to_json()))?,
            head_weights: write_tensors(head.tensor_specs(&name, summary.info.hidden_size))?,
        })
    }

    /// # Errors
    /// `Invalid`: `unreadable_adapter` and `unsupported_adapter` naming the field, `adapter_tensors` naming every missing, extra and
    /// misshapen tensor.
    pub fn parse(&self, summary: &BaseSummary) -> Result<ParsedAdapter> {
        let config = Config::parse(&parse_object("adapter_config.json", &self.config)?, summary)?;
        let head = ClassificationHead::parse(&parse_object(HEAD_CONFIG_FILE, &self.head_config)?)?;
        head.check_base(summary)?;
        let pooling = head.to_task().pooling().unwrap_or(summary.info.default_pooling);
        let sites = summary.sites_for(pooling);
        config.check_sites(sites)?;
        let (mut errors, mut weights) = (ValidationErrors::default(), TensorMap::new());
        let adapter_specs = keys::bottleneck_specs(&config.method, sites, &config.name);
        collect_tensors(safetensors::read(&self.weights)?, adapter_specs, &mut weights, &mut errors);
        let head_specs = head.tensor_specs(&config.name, summary.info.hidden_size);
        collect_tensors(safetensors::read(&self.head_weights)?, head_specs, &mut weights, &mut errors);
        errors.into_result("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
        Ok(ParsedAdapter { config, head, weights })
    }

    /// By the names that `adapters` looks for.
    pub fn named_files(&self) -> [(&'static str, &[u8]); 4] {
        [
            (super::CONFIG_FILE, &self.config),
            (WEIGHTS_FILE, &self.weights),
            (HEAD_CONFIG_FILE, &self.head_config),
            (HEAD_WEIGHTS_FILE, &self.head_weights),
        ]
    }
}

/// One tensor of a file: its key, our name for it, its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    key: String,
    name: String,
    shape: Vec<usize>,
}

/// Moves a file's tensors under our names; every one that is missing, misshapen or left over becomes a fault.
fn collect_tensors(
    mut tensors: TensorMap,
    specs: Vec<TensorSpec>,
    weights: &mut TensorMap,
    errors: &mut ValidationErrors,
) {
    for TensorSpec { key, name, shape } in specs {
        // A bare encoder's file has no first segment.
        let bare_key = key.split_once('.').map_or(key.as_str(), |(_, rest)| rest).to_string();
        match tensors.remove(&key).or_else(|| tensors.remove(&bare_key)) {
            None => errors.push(format!("{key} is missing")),
            Some(tensor) if tensor.shape == shape => drop(weights.insert(name, tensor)),
            Some(tensor) => errors.push(format!("{key} has the shape {:?}, expected {shape:?}", tensor.shape)),
        }
    }
    tensors.keys().for_each(|key| errors.push(format!("{key} is not a tensor of this adapter as its config says")));
}

/// PyTorch lets no dot into the name of a module.
fn sanitized_name(name: &str) -> String {
    let replace_char = |letter: char| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' };
    name.chars().map(replace_char).collect()
}

fn parse_object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|error| invalid_file(file, &format!("it is not a JSON object ({error})")))
}

/// Sorted keys, as `adapters` writes them.
fn to_sorted_json(value: &Value) -> Result<Vec<u8>> {
    let mut value = value.clone();
    value.sort_all_objects();
    let mut bytes = serde_json::to_vec_pretty(&value).context("writing an AdapterHub config")?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn unsupported_format(what: &str) -> Error {
    let detail = format!("AdapterHub's form has nothing for {what}: download it as peft");
    Error::invalid("unsupported_format", detail)
}

fn invalid_file(file: &str, what: &str) -> Error {
    Error::invalid("unreadable_adapter", format!("{file}: {what}"))
}

/// The object under `config`.
fn config_object<'a>(file: &str, fields: &'a Map<String, Value>) -> Result<&'a Map<String, Value>> {
    fields.get("config").and_then(Value::as_object).ok_or_else(|| {
        invalid_file(file, "config must be the object of all settings, as save_adapter of adapters 1.x writes it")
    })
}

#[cfg(test)]
mod tests;
