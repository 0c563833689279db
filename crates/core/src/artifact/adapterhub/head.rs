//! AdapterHub's head of a classification: `head_config.json` and the keys of `model_head.safetensors`.
//!
//! It reads the first token, as it is or through the pooler, through one or two linear maps.

use super::config::{activation, word};
use super::{Entry, HEAD_CONFIG_FILE, inner, no_word, unreadable};
use crate::artifact::{Card, Outline};
use crate::error::{Error, Result};
use crate::model::Pooling;
use crate::task::{self, head, sequence_classification};
use espalier_tensor::kernels::Activation;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pooling: Pooling,
    /// Of the layer before the outputs.
    dense: Option<Activation>,
    multi_label: bool,
    outputs: usize,
    pub labels: Option<Vec<String>>,
}

/// Settings that are read.
const KNOWN: [&str; 8] = [
    "head_type",
    "num_labels",
    "layers",
    "activation_function",
    "label2id",
    "use_pooler",
    "bias",
    // In training alone.
    "dropout_prob",
];

impl Head {
    /// # Errors
    /// `Invalid` (`unsupported_format`) where AdapterHub has no such head.
    pub fn of(card: &Card, outline: &Outline) -> Result<Self> {
        let task::Config::SequenceClassification(config) = &card.task else {
            return Err(no_word(&format!("a head for the task {}", card.task.name())));
        };
        let pooling = outline.pooling(&card.task);
        if pooling == Pooling::Mean {
            return Err(no_word(
                "a head on the mean of a sequence: its heads read the first token (pooling \"first\" or \"cls\")",
            ));
        }
        // Where the base's own head has a dense layer, `cls` reads the first token as it is.
        let reads_pooler = pooling == Pooling::Cls && outline.info.head().dense.is_none();
        Ok(Self {
            pooling: if reads_pooler { Pooling::Cls } else { Pooling::First },
            dense: card.task.dense(),
            multi_label: config.multi_label,
            outputs: card.labels.len(),
            labels: Some(card.labels.clone()),
        })
    }

    /// # Errors
    /// `Invalid`: `unreadable_adapter`, `unsupported_adapter` naming the field.
    pub fn read(fields: &Map<String, Value>) -> Result<Self> {
        let settings = inner(HEAD_CONFIG_FILE, fields)?;
        if let Some(unknown) = settings.keys().find(|field| !KNOWN.contains(&field.as_str())) {
            return Err(unsupported(&format!("config.{unknown} is not known here")));
        }
        let multi_label = match settings.get("head_type").and_then(Value::as_str) {
            Some("classification") => false,
            Some("multilabel_classification") => true,
            _ => {
                let found = settings.get("head_type").unwrap_or(&Value::Null);
                return Err(unsupported(&format!(
                    "config.head_type is {found}, expected classification or multilabel_classification"
                )));
            }
        };
        let flag = |field: &str, default: bool| match settings.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(unsupported(&format!("config.{field} is {other}, expected true or false"))),
        };
        if !flag("bias", true)? {
            return Err(unsupported("config.bias is false, expected true"));
        }
        let dense = match settings.get("layers").and_then(Value::as_u64) {
            Some(1) => None,
            Some(2) => {
                Some(activation(HEAD_CONFIG_FILE, "config.activation_function", settings.get("activation_function"))?)
            }
            _ => return Err(unsupported("config.layers must be 1 or 2")),
        };
        let outputs = settings.get("num_labels").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        let outputs =
            outputs.filter(|count| *count > 1).ok_or_else(|| unsupported("config.num_labels must be at least 2"))?;
        let pooling = if flag("use_pooler", false)? { Pooling::Cls } else { Pooling::First };
        Ok(Self { pooling, dense, multi_label, outputs, labels: labels(settings, outputs)? })
    }

    /// # Errors
    /// `Invalid` (`unsupported_adapter`) where it reads a pooler that is not read here.
    pub fn fits(&self, outline: &Outline) -> Result<()> {
        let offers = outline.info.poolings.contains(&Pooling::Cls) && outline.info.head().dense.is_none();
        match self.pooling == Pooling::Cls && !offers {
            true => Err(unsupported("config.use_pooler is true, and this base has no pooler that is read here")),
            false => Ok(()),
        }
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn task(&self) -> task::Config {
        task::Config::SequenceClassification(sequence_classification::Config {
            pooling: Some(self.pooling),
            multi_label: self.multi_label,
            head: self.dense.map(|activation| head::Config::Dense(head::Dense { activation })),
        })
    }

    /// Its tensors in the file, where the layers are counted with the dropouts and activations between them.
    pub fn entries(&self, name: &str, width: usize) -> Vec<Entry> {
        let (inner, last) = match self.dense {
            Some(_) => (Some((head::DENSE, 1, width)), 4),
            None => (None, 1),
        };
        let layers = inner.into_iter().chain([(head::NAME, last, self.outputs)]);
        let pair = |(ours, place, rows): (&str, usize, usize)| {
            let entry = |what: &str, shape| Entry {
                key: format!("heads.{name}.{place}.{what}"),
                name: format!("{ours}.{what}"),
                shape,
            };
            [entry("weight", vec![rows, width]), entry("bias", vec![rows])]
        };
        layers.flat_map(pair).collect()
    }

    pub fn written(&self) -> Value {
        let ids: BTreeMap<&String, usize> = self.labels.iter().flatten().zip(0..).collect();
        json!({
            "activation_function": word(self.dense.unwrap_or(Activation::Tanh)),
            "bias": true,
            "dropout_prob": null,
            "head_type": if self.multi_label { "multilabel_classification" } else { "classification" },
            "label2id": ids,
            "layers": if self.dense.is_some() { 2 } else { 1 },
            "num_labels": self.outputs,
            "use_pooler": self.pooling == Pooling::Cls,
        })
    }
}

/// In the order of their numbers.
fn labels(settings: &Map<String, Value>, outputs: usize) -> Result<Option<Vec<String>>> {
    let ids = match settings.get("label2id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(ids)) => ids,
        Some(_) => return Err(unreadable(HEAD_CONFIG_FILE, "config.label2id must be an object from names to numbers")),
    };
    let by_number: BTreeMap<u64, &String> = ids.iter().filter_map(|(name, id)| Some((id.as_u64()?, name))).collect();
    match by_number.len() == outputs && by_number.keys().copied().eq(0..outputs as u64) {
        true => Ok(Some(by_number.into_values().cloned().collect())),
        false => {
            Err(unreadable(HEAD_CONFIG_FILE, &format!("config.label2id must name the numbers 0 to {}", outputs - 1)))
        }
    }
}

fn unsupported(what: &str) -> Error {
    Error::invalid("unsupported_adapter", format!("{HEAD_CONFIG_FILE}: {what}"))
}
