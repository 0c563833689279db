//! AdapterHub's folder, as the `adapters` package saves and loads it: bottleneck adapters with a head on the first token.
//!
//! Four files: what the adapter is and its tensors, and the same of the head. What AdapterHub means but this server cannot do is
//! refused by name, and so is what this server does but AdapterHub has no word for. Knows nothing of zips.

mod config;
mod head;
mod keys;

use super::faults::Faults;
use super::{Artifact, Outline, safetensors};
use crate::adapter;
use crate::error::{Context, Error, Result};
use espalier_tensor::Tensor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub use config::Config;
pub use head::Head;

/// Beside it lies an `adapter_config.json`, as PEFT calls it too.
pub const TENSOR_FILE: &str = "adapter.safetensors";
pub const HEAD_CONFIG_FILE: &str = "head_config.json";
pub const HEAD_TENSOR_FILE: &str = "model_head.safetensors";
/// What `adapters` writes where it is not asked for safetensors.
pub const PICKLES: [&str; 2] = ["pytorch_adapter.bin", "pytorch_model_head.bin"];

type Tensors = BTreeMap<String, Tensor>;

/// The bytes of the four files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub config: Vec<u8>,
    pub tensors: Vec<u8>,
    pub head_config: Vec<u8>,
    pub head_tensors: Vec<u8>,
}

/// What the files say: the adapter's tensors and the head's under our names.
pub struct Opened {
    pub config: Config,
    pub head: Head,
    pub weights: Tensors,
}

impl Files {
    /// `name` is what the adapter is called inside; it may be any text.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_format`) where AdapterHub has no word for the adapter.
    pub fn of(artifact: &Artifact, outline: &Outline, name: &str) -> Result<Self> {
        let card = &artifact.card;
        let adapter::Config::Bottleneck(method) = &card.method else {
            let method = card.method.name();
            return Err(no_word(&format!("the method {method}, of which only bottleneck is written in this form")));
        };
        let name = inner_name(name);
        let sites = outline.sites(outline.pooling(&card.task));
        let class = keys::model_class(&outline.info)?;
        let head = Head::of(card, outline)?;
        let about = |config: Value| {
            json!({
                "config": config,
                "hidden_size": outline.info.hidden_size,
                "model_class": class,
                "model_name": card.base.name,
                "model_type": outline.info.model_type,
                "name": name,
                "version": "adapters.1.3.0",
            })
        };
        let write = |entries: Vec<Entry>| {
            let keyed = |entry: Entry| Some((entry.key, artifact.weights.get(&entry.name)?.clone()));
            safetensors::write(&entries.into_iter().filter_map(keyed).collect())
        };
        Ok(Self {
            config: pretty(&about(config::written(method, sites)))?,
            tensors: write(keys::of(method, sites, &name))?,
            head_config: pretty(&about(head.written()))?,
            head_tensors: write(head.entries(&name, outline.info.hidden_size))?,
        })
    }

    /// # Errors
    /// `Invalid`: `unreadable_adapter` and `unsupported_adapter` naming the field, `adapter_tensors` naming every missing, extra and
    /// misshapen tensor.
    pub fn open(&self, outline: &Outline) -> Result<Opened> {
        let config = Config::read(&fields("adapter_config.json", &self.config)?, outline)?;
        let head = Head::read(&fields(HEAD_CONFIG_FILE, &self.head_config)?)?;
        head.fits(outline)?;
        let pooling = head.task().pooling().unwrap_or(outline.info.default_pooling);
        let sites = outline.sites(pooling);
        config.fits(sites)?;
        let (mut faults, mut weights) = (Faults::default(), Tensors::new());
        let own = keys::of(&config.method, sites, &config.name);
        take(safetensors::read(&self.tensors)?, own, &mut weights, &mut faults);
        let own = head.entries(&config.name, outline.info.hidden_size);
        take(safetensors::read(&self.head_tensors)?, own, &mut weights, &mut faults);
        faults.finish("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
        Ok(Opened { config, head, weights })
    }

    /// By the names that `adapters` looks for.
    pub fn named(&self) -> [(&'static str, &[u8]); 4] {
        [
            (super::CONFIG_FILE, &self.config),
            (TENSOR_FILE, &self.tensors),
            (HEAD_CONFIG_FILE, &self.head_config),
            (HEAD_TENSOR_FILE, &self.head_tensors),
        ]
    }
}

/// One tensor of a file: its key, our name for it, its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    key: String,
    name: String,
    shape: Vec<usize>,
}

/// Moves a file's tensors under our names; every one that is missing, misshapen or left over becomes a fault.
fn take(mut tensors: Tensors, entries: Vec<Entry>, weights: &mut Tensors, faults: &mut Faults) {
    for Entry { key, name, shape } in entries {
        // A bare encoder's file has no first segment.
        let bare = key.split_once('.').map_or(key.as_str(), |(_, rest)| rest).to_string();
        match tensors.remove(&key).or_else(|| tensors.remove(&bare)) {
            None => faults.add(format!("{key} is missing")),
            Some(tensor) if tensor.shape == shape => drop(weights.insert(name, tensor)),
            Some(tensor) => faults.add(format!("{key} has the shape {:?}, expected {shape:?}", tensor.shape)),
        }
    }
    tensors.keys().for_each(|key| faults.add(format!("{key} is not a tensor of this adapter as its config says")));
}

/// PyTorch lets no dot into the name of a module.
fn inner_name(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' };
    name.chars().map(letter).collect()
}

fn fields(file: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|error| unreadable(file, &format!("it is not a JSON object ({error})")))
}

/// Sorted keys, as `adapters` writes them.
fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut value = value.clone();
    value.sort_all_objects();
    let mut bytes = serde_json::to_vec_pretty(&value).context("writing an AdapterHub config")?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn no_word(what: &str) -> Error {
    let detail = format!("AdapterHub's form has nothing for {what}: download it as peft");
    Error::invalid("unsupported_format", detail)
}

fn unreadable(file: &str, what: &str) -> Error {
    Error::invalid("unreadable_adapter", format!("{file}: {what}"))
}

/// The object under `config`.
fn inner<'a>(file: &str, fields: &'a Map<String, Value>) -> Result<&'a Map<String, Value>> {
    fields.get("config").and_then(Value::as_object).ok_or_else(|| {
        unreadable(file, "config must be the object of all settings, as save_adapter of adapters 1.x writes it")
    })
}

#[cfg(test)]
mod tests;
