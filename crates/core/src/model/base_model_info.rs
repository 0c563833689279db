//! Description of the loaded base model, including the pooling settings of sentence-transformers.

use super::architectures::{self, ArchitectureEntry};
use super::checkpoint_files::read_json;
use super::classification_head::ClassificationHeadSpec;
use super::loader::WeightLayout;
use super::pooling::Pooling;
use super::site::Module;
use super::stack::Stack;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use utoipa::ToSchema;

/// The loaded base model: the body of `GET /base`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BaseModelInfo {
    /// `base_model_name_or_path` in PEFT, for example `sentence-transformers/all-MiniLM-L6-v2`.
    pub name: String,
    pub model_type: String,
    /// `sha256:…` of the tensors, the tokenizer and the fields of the config that change the results.
    pub fingerprint: String,
    pub parameters: u64,
    pub hidden_size: usize,
    pub layers: usize,
    pub attention_heads: usize,
    pub vocabulary_size: usize,
    /// Maximum sequence length in tokens.
    pub max_tokens: usize,
    pub default_pooling: Pooling,
    pub poolings: Vec<Pooling>,
    /// Whether it is a sentence-transformers model: it has a `1_Pooling` folder.
    pub sentence_encoder: bool,
    /// Whether embeddings of the base model are normalized to length 1, according to its `modules.json`.
    pub normalized_embedding: bool,
    /// The mask token, if the checkpoint has a masked language model's head and the tokenizer has a mask token.
    pub mask_token: Option<String>,
    /// Whether it is a causal language model: a decoder whose checkpoint has a language model's head.
    #[serde(default)]
    pub is_causal_lm: bool,
    /// Whether the checkpoint has a chat template.
    #[serde(default)]
    pub chat: bool,
    /// Modules that LoRA can target.
    pub target_modules: Vec<String>,
    /// Name of the backend, for example `candle-cpu`.
    #[serde(rename = "kernels")]
    pub backend: String,
}

impl BaseModelInfo {
    /// The classification head of the architecture's checkpoints.
    pub fn classification_head(&self) -> ClassificationHeadSpec {
        let entry = architectures::find_entry(&self.model_type);
        entry.map_or(ClassificationHeadSpec::BERT, |entry| entry.classification_head)
    }

    /// Path of the word embeddings in transformers' model with a head.
    pub fn word_embeddings_path(&self) -> Option<&'static str> {
        architectures::find_entry(&self.model_type).map(|entry| entry.word_embeddings_path)
    }

    /// Pooling of the classification model in transformers: the first token, or the last token of a decoder.
    pub fn classification_pooling(&self) -> Pooling {
        if self.poolings.contains(&Pooling::Last) { Pooling::Last } else { Pooling::Cls }
    }

    /// `fan_in_fan_out` of PEFT: whether transformers stores linear weights as `(input, output)`.
    pub fn fan_in_fan_out(&self) -> bool {
        architectures::find_entry(&self.model_type)
            .is_some_and(|entry| entry.weight_layout == WeightLayout::InputOutput)
    }
}

/// Describes the folder and the architecture. The caller fills in the fields that depend on weights and backend.
pub(super) fn describe(folder: &Path, name: &str, entry: &ArchitectureEntry, stack: &Stack) -> Result<BaseModelInfo> {
    let (dimensions, has_dense) = (stack.dimensions, entry.classification_head.dense.is_some());
    let reads_pooler = stack.pooler.is_some() && !has_dense;
    let poolings = match (stack.is_causal(), reads_pooler || has_dense) {
        // The first row of a decoder attends to nothing but itself.
        (true, _) => vec![Pooling::Last, Pooling::Mean],
        (false, true) => vec![Pooling::Mean, Pooling::Cls, Pooling::First],
        (false, false) => vec![Pooling::Mean, Pooling::First],
    };
    let sites = stack.sites();
    let has_module = |module: &Module| module.is_linear() && sites.iter().any(|info| info.site.module == *module);
    let modules = Module::ALL.into_iter().filter(has_module);
    Ok(BaseModelInfo {
        name: name.to_string(),
        model_type: entry.model_type.to_string(),
        fingerprint: String::new(),
        parameters: 0,
        hidden_size: dimensions.hidden_size,
        layers: stack.layers.len(),
        attention_heads: dimensions.attention_heads,
        vocabulary_size: dimensions.vocabulary_size,
        max_tokens: dimensions.max_tokens,
        default_pooling: default_pooling(folder, &poolings, reads_pooler)?,
        poolings,
        sentence_encoder: folder.join(POOLING_CONFIG_FILE).is_file(),
        normalized_embedding: has_normalize_module(folder)?,
        mask_token: None,
        is_causal_lm: false,
        chat: false,
        target_modules: modules.map(|module| module.name().to_string()).collect(),
        backend: String::new(),
    })
}

/// Pooling settings of sentence-transformers.
const POOLING_CONFIG_FILE: &str = "1_Pooling/config.json";

/// Pooling of `1_Pooling/config.json`. Without the file: the pooler if the head reads it, the last token of a decoder, else the
/// mean.
fn default_pooling(folder: &Path, poolings: &[Pooling], reads_pooler: bool) -> Result<Pooling> {
    let path = folder.join(POOLING_CONFIG_FILE);
    if !path.is_file() {
        return Ok(if reads_pooler { Pooling::Cls } else { poolings[0] });
    }
    let config = read_json(&path)?;
    let fields = config.as_object().into_iter().flatten();
    let mut modes =
        fields.filter(|(field, value)| field.starts_with(POOLING_MODE_PREFIX) && value.as_bool() == Some(true));
    let pooling = match modes.next().map(|(mode, _)| &mode[POOLING_MODE_PREFIX.len()..]) {
        // The default of sentence-transformers.
        None | Some("mean_tokens") => Pooling::Mean,
        Some("cls_token") => Pooling::First,
        Some("lasttoken") => Pooling::Last,
        Some(other) => return unsupported_setting(POOLING_CONFIG_FILE, &format!("{POOLING_MODE_PREFIX}{other}")),
    };
    match modes.next() {
        Some((other, _)) => unsupported_setting(POOLING_CONFIG_FILE, &format!("{other} beside another")),
        None if poolings.contains(&pooling) => Ok(pooling),
        None => unsupported_setting(POOLING_CONFIG_FILE, "its pooling on this architecture"),
    }
}

/// Prefix of the settings in `1_Pooling/config.json`.
const POOLING_MODE_PREFIX: &str = "pooling_mode_";

/// # Errors
/// `Invalid` (`unsupported_model`), always: without the setting the embeddings would differ from those of the model.
fn unsupported_setting<T>(file: &str, setting: &str) -> Result<T> {
    let advice = format!("take {file} out of the folder to use the base without it");
    Err(Error::invalid("unsupported_model", format!("{file}: {setting} is not supported; {advice}")))
}

/// Supported modules of sentence-transformers.
const SUPPORTED_MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// Whether `modules.json` of sentence-transformers has a `Normalize` module.
fn has_normalize_module(folder: &Path) -> Result<bool> {
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(false);
    }
    let module_list = read_json(&path)?;
    let kinds = module_list.as_array().into_iter().flatten().filter_map(|module| module["type"].as_str());
    let module_types: Vec<&str> = kinds.map(|kind| kind.rsplit('.').next().unwrap_or(kind)).collect();
    match module_types.iter().find(|kind| !SUPPORTED_MODULES.contains(kind)) {
        Some(other) => unsupported_setting("modules.json", &format!("the module {other}")),
        None => Ok(module_types.contains(&"Normalize")),
    }
}
