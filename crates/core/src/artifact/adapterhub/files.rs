//! The four files of an AdapterHub folder: configuration and tensors of the adapter, and of the head.

use super::config::{self, Config, parse_object, to_sorted_json, unsupported_format};
use super::head::{ClassificationHead, HEAD_CONFIG_FILE};
use crate::adapter::tensor_spec::{CONFIG_FILE, TensorSpec, ValidationErrors};
use crate::adapter::{self, TensorMap};
use crate::artifact::base::BaseSummary;
use crate::artifact::manifest::Artifact;
use crate::artifact::safetensors::{self, build_tensor, take_tensor};
use crate::error::Result;
use serde_json::{Value, json};

/// The adapter's tensors. The configuration beside it is [`CONFIG_FILE`], as in PEFT's folders.
pub const WEIGHTS_FILE: &str = "adapter.safetensors";
pub const HEAD_WEIGHTS_FILE: &str = "model_head.safetensors";
/// Files that `adapters` writes by default instead of safetensors.
pub const PICKLE_FILES: [&str; 2] = ["pytorch_adapter.bin", "pytorch_model_head.bin"];

/// The bytes of the four files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterHubFiles {
    pub config: Vec<u8>,
    pub weights: Vec<u8>,
    pub head_config: Vec<u8>,
    pub head_weights: Vec<u8>,
}

/// The parsed files, with tensors of adapter and head by native names.
pub struct ParsedAdapter {
    pub config: Config,
    pub head: ClassificationHead,
    pub weights: TensorMap,
}

impl AdapterHubFiles {
    /// Converts an adapter. `name` is the adapter's name in the files and may be any text.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_format`) if AdapterHub's format cannot express the adapter.
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
        let model_class = config::model_class(&summary.info)?;
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
        let write_tensors = |specs: Vec<TensorSpec>| {
            let with_key = |spec: TensorSpec| {
                let tensor = build_tensor(&spec, |name| artifact.weights.get(name))?;
                Some((spec.key, tensor))
            };
            safetensors::write(&specs.into_iter().filter_map(with_key).collect())
        };
        Ok(Self {
            config: to_sorted_json(envelope(method.to_adapterhub(sites)))?,
            weights: write_tensors(method.adapterhub_tensor_specs(sites, &name))?,
            head_config: to_sorted_json(envelope(head.to_json()))?,
            head_weights: write_tensors(head.tensor_specs(&name, summary.info.hidden_size))?,
        })
    }

    /// # Errors
    /// `Invalid`: `unreadable_adapter` and `unsupported_adapter` naming the field, `adapter_tensors` naming every missing, extra and
    /// misshapen tensor.
    pub fn parse(&self, summary: &BaseSummary) -> Result<ParsedAdapter> {
        let config = Config::parse(&parse_object(CONFIG_FILE, &self.config)?, summary)?;
        let head = ClassificationHead::parse(&parse_object(HEAD_CONFIG_FILE, &self.head_config)?)?;
        head.check_base(summary)?;
        let pooling = head.to_task().pooling().unwrap_or(summary.info.default_pooling);
        let sites = summary.sites_for(pooling);
        config.check_sites(summary, sites)?;
        let (mut errors, mut weights) = (ValidationErrors::default(), TensorMap::new());
        let adapter_specs = config.method.adapterhub_tensor_specs(sites, &config.name);
        take_tensors(safetensors::read(&self.weights)?, &adapter_specs, &mut weights, &mut errors);
        let head_specs = head.tensor_specs(&config.name, summary.info.hidden_size);
        take_tensors(safetensors::read(&self.head_weights)?, &head_specs, &mut weights, &mut errors);
        errors.into_result("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
        Ok(ParsedAdapter { config, head, weights })
    }

    /// The files under the names that `adapters` opens.
    pub fn named_files(&self) -> [(&'static str, &[u8]); 4] {
        [
            (CONFIG_FILE, &self.config),
            (WEIGHTS_FILE, &self.weights),
            (HEAD_CONFIG_FILE, &self.head_config),
            (HEAD_WEIGHTS_FILE, &self.head_weights),
        ]
    }
}

/// Moves the tensors of one file to their native names. Records an error for each that is missing, misshapen or unexpected.
fn take_tensors(
    mut file_tensors: TensorMap,
    specs: &[TensorSpec],
    native_tensors: &mut TensorMap,
    errors: &mut ValidationErrors,
) {
    for spec in specs {
        // A file that was saved from a bare encoder omits the first segment.
        if !file_tensors.contains_key(&spec.key)
            && let Some((_, bare_key)) = spec.key.split_once('.')
            && let Some(tensor) = file_tensors.remove(bare_key)
        {
            file_tensors.insert(spec.key.clone(), tensor);
        }
        take_tensor(spec, &mut file_tensors, native_tensors, errors);
    }
    let unexpected = |key: &String| format!("{key} is not a tensor of this adapter as its config says");
    file_tensors.keys().for_each(|key| errors.push(unexpected(key)));
}

/// Replaces characters that a name of a PyTorch module cannot contain, above all the dot.
fn sanitized_name(name: &str) -> String {
    let replace_char = |letter: char| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' };
    name.chars().map(replace_char).collect()
}

#[cfg(test)]
mod tests;
