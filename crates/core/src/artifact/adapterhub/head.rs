//! AdapterHub's classification head: `head_config.json`, and the keys of `model_head.safetensors`.
//!
//! The head reads the first token, directly or through the pooler, and has one or two linear layers.

use super::config::{config_object, unsupported_format};
use crate::adapter::bottleneck::adapterhub::{activation_name, bool_setting, parse_activation};
use crate::adapter::tensor_spec::{TensorSpec, invalid_file, unsupported_file};
use crate::artifact::base::BaseSummary;
use crate::artifact::manifest::AdapterManifest;
use crate::error::{Error, Result};
use crate::model::Pooling;
use crate::task::{self, head, sequence_classification};
use espalier_tensor::backend::Activation;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Name of the file that describes the head.
pub const HEAD_CONFIG_FILE: &str = "head_config.json";

/// A parsed `head_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassificationHead {
    pooling: Pooling,
    /// Activation of the layer before the output layer; `None` without such a layer.
    dense_activation: Option<Activation>,
    multi_label: bool,
    num_labels: usize,
    pub labels: Option<Vec<String>>,
}

/// Settings that are read.
const KNOWN_SETTINGS: [&str; 8] = [
    "head_type",
    "num_labels",
    "layers",
    "activation_function",
    "label2id",
    "use_pooler",
    "bias",
    // Affects training only.
    "dropout_prob",
];

impl ClassificationHead {
    /// # Errors
    /// `Invalid` (`unsupported_format`) if AdapterHub has no such head.
    pub fn from_manifest(manifest: &AdapterManifest, summary: &BaseSummary) -> Result<Self> {
        let task::Config::SequenceClassification(config) = &manifest.task else {
            return Err(unsupported_format(&format!("a head for the task {}", manifest.task.type_name())));
        };
        let pooling = summary.pooling(&manifest.task);
        if pooling == Pooling::Mean {
            return Err(unsupported_format(
                "a head on the mean of a sequence: its heads read the first token (pooling \"first\" or \"cls\")",
            ));
        }
        // If transformers' head of this base has a dense layer, `cls` reads the first token directly.
        let uses_pooler = pooling == Pooling::Cls && summary.info.classification_head().dense.is_none();
        Ok(Self {
            pooling: if uses_pooler { Pooling::Cls } else { Pooling::First },
            dense_activation: manifest.task.head_activation(),
            multi_label: config.multi_label,
            num_labels: manifest.labels.len(),
            labels: Some(manifest.labels.clone()),
        })
    }

    /// # Errors
    /// `Invalid`: `unreadable_adapter`, `unsupported_adapter` naming the field.
    pub fn parse(fields: &Map<String, Value>) -> Result<Self> {
        let settings = config_object(HEAD_CONFIG_FILE, fields)?;
        if let Some(unknown) = settings.keys().find(|field| !KNOWN_SETTINGS.contains(&field.as_str())) {
            return Err(unsupported_setting(format!("config.{unknown} is not known here")));
        }
        let multi_label = match settings.get("head_type").and_then(Value::as_str) {
            Some("classification") => false,
            Some("multilabel_classification") => true,
            _ => {
                let found = settings.get("head_type").unwrap_or(&Value::Null);
                return Err(unsupported_setting(format!(
                    "config.head_type is {found}, expected classification or multilabel_classification"
                )));
            }
        };
        let bool_setting = |field: &str, default| bool_setting(HEAD_CONFIG_FILE, settings, field, default);
        if !bool_setting("bias", true)? {
            return Err(unsupported_setting("config.bias is false, expected true"));
        }
        let dense = match settings.get("layers").and_then(Value::as_u64) {
            Some(1) => None,
            Some(2) => Some(parse_activation(
                HEAD_CONFIG_FILE,
                "config.activation_function",
                settings.get("activation_function"),
            )?),
            _ => return Err(unsupported_setting("config.layers must be 1 or 2")),
        };
        let num_labels =
            settings.get("num_labels").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        let checked_num_labels = num_labels
            .filter(|count| *count > 1)
            .ok_or_else(|| unsupported_setting("config.num_labels must be at least 2"))?;
        let pooling = if bool_setting("use_pooler", false)? { Pooling::Cls } else { Pooling::First };
        Ok(Self {
            pooling,
            dense_activation: dense,
            multi_label,
            num_labels: checked_num_labels,
            labels: parse_labels(settings, checked_num_labels)?,
        })
    }

    /// # Errors
    /// `Invalid` (`unsupported_adapter`) if the head reads a pooler that this base does not have.
    pub fn check_base(&self, summary: &BaseSummary) -> Result<()> {
        let has_pooler =
            summary.info.poolings.contains(&Pooling::Cls) && summary.info.classification_head().dense.is_none();
        match self.pooling == Pooling::Cls && !has_pooler {
            true => {
                Err(unsupported_setting("config.use_pooler is true, and this base has no pooler that is read here"))
            }
            false => Ok(()),
        }
    }

    pub fn num_labels(&self) -> usize {
        self.num_labels
    }

    pub fn to_task(&self) -> task::Config {
        task::Config::SequenceClassification(sequence_classification::Config {
            pooling: Some(self.pooling),
            multi_label: self.multi_label,
            head: self.dense_activation.map(|activation| head::Config::Dense(head::DenseHead { activation })),
            class_weights: None,
        })
    }

    /// The head's tensors. AdapterHub numbers the layers together with the dropouts and activations between them.
    pub fn tensor_specs(&self, adapter_name: &str, hidden_size: usize) -> Vec<TensorSpec> {
        let (dense_layer, output_index) = match self.dense_activation {
            Some(_) => (Some((head::DENSE_LAYER, 1, hidden_size)), 4),
            None => (None, 1),
        };
        let layers = dense_layer.into_iter().chain([(head::OUTPUT_LAYER, output_index, self.num_labels)]);
        let layer_specs = |(native_name, layer_index, rows): (&str, usize, usize)| {
            let spec = |suffix: &str, shape| {
                let key = format!("heads.{adapter_name}.{layer_index}.{suffix}");
                TensorSpec::with_key(key, format!("{native_name}.{suffix}"), shape)
            };
            [spec("weight", vec![rows, hidden_size]), spec("bias", vec![rows])]
        };
        layers.flat_map(layer_specs).collect()
    }

    pub fn to_json(&self) -> Value {
        let ids: BTreeMap<&String, usize> = self.labels.iter().flatten().zip(0..).collect();
        json!({
            "activation_function": activation_name(self.dense_activation.unwrap_or(Activation::Tanh)),
            "bias": true,
            "dropout_prob": null,
            "head_type": if self.multi_label { "multilabel_classification" } else { "classification" },
            "label2id": ids,
            "layers": if self.dense_activation.is_some() { 2 } else { 1 },
            "num_labels": self.num_labels,
            "use_pooler": self.pooling == Pooling::Cls,
        })
    }
}

/// Parses `label2id`; the labels in the order of their numbers.
fn parse_labels(settings: &Map<String, Value>, num_labels: usize) -> Result<Option<Vec<String>>> {
    let ids = match settings.get("label2id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(ids)) => ids,
        Some(_) => {
            return Err(invalid_file(HEAD_CONFIG_FILE, "config.label2id must be an object from names to numbers"));
        }
    };
    let by_number: BTreeMap<u64, &String> = ids.iter().filter_map(|(name, id)| Some((id.as_u64()?, name))).collect();
    match by_number.len() == num_labels && by_number.keys().copied().eq(0..num_labels as u64) {
        true => Ok(Some(by_number.into_values().cloned().collect())),
        false => Err(invalid_file(
            HEAD_CONFIG_FILE,
            format!("config.label2id must name the numbers 0 to {}", num_labels - 1),
        )),
    }
}

fn unsupported_setting(reason: impl Display) -> Error {
    unsupported_file(HEAD_CONFIG_FILE, reason)
}
