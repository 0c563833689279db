//! What a base model is and can do, as its folder and its architecture say.

use super::architecture::{self, Architecture, ArchitectureEntry};
use super::loader::WeightLayout;
use super::weights::read_json;
use super::{ClassificationHeadSpec, Module, Pooling};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use utoipa::ToSchema;

/// What the loaded base is and can do: the body of `GET /base`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BaseModelInfo {
    /// PEFT's `base_model_name_or_path`, for example `sentence-transformers/all-MiniLM-L6-v2`.
    pub name: String,
    pub model_type: String,
    /// `sha256:…` over tensors, tokenizer and the fields of the config that change arithmetic.
    pub fingerprint: String,
    pub parameters: u64,
    pub hidden_size: usize,
    pub layers: usize,
    pub attention_heads: usize,
    pub vocabulary_size: usize,
    /// Tokens in the longest sequence that it can read.
    pub max_tokens: usize,
    pub default_pooling: Pooling,
    pub poolings: Vec<Pooling>,
    /// Whether its pooled rows were made to be compared, as sentence-transformers' are: it has a `1_Pooling`.
    pub sentence_encoder: bool,
    /// Whether the bare base's embeddings are scaled to length 1, as the model's `modules.json` asks.
    pub normalized_embedding: bool,
    /// What stands for a hidden word in a text, where the base can tell what was there: its checkpoint has a masked language
    /// model's head, and its tokenizer a mask.
    pub mask_token: Option<String>,
    /// Whether it says what comes next: a decoder whose checkpoint has a language model's head.
    #[serde(default)]
    pub is_causal_lm: bool,
    /// Whether it takes conversations: its checkpoint has a chat template.
    #[serde(default)]
    pub chat: bool,
    /// Our names of the modules that LoRA may target.
    pub target_modules: Vec<String>,
    /// `candle-cpu`, …
    #[serde(rename = "kernels")]
    pub backend: String,
}

impl BaseModelInfo {
    /// The head of its checkpoints for classification.
    pub fn classification_head(&self) -> ClassificationHeadSpec {
        ClassificationHeadSpec::for_model_type(&self.model_type)
    }

    /// What the classification model in transformers reads: the first token, or a decoder's last.
    pub fn classification_pooling(&self) -> Pooling {
        if self.poolings.contains(&Pooling::Last) { Pooling::Last } else { Pooling::Cls }
    }

    /// Whether transformers' model keeps linear maps as (input, output), which PEFT has to be told.
    pub fn fan_in_fan_out(&self) -> bool {
        architecture::find_entry(&self.model_type)
            .is_some_and(|family| family.weight_layout == WeightLayout::InputOutput)
    }
}

/// All but what the weights and the kernels say.
pub(super) fn describe(
    folder: &Path,
    name: &str,
    family: &ArchitectureEntry,
    architecture: &dyn Architecture,
) -> Result<BaseModelInfo> {
    let (dimensions, has_dense) = (architecture.dimensions(), family.classification_head.dense.is_some());
    let reads_pooler = architecture.has_pooler() && !has_dense;
    let poolings = match (architecture.is_causal(), reads_pooler || has_dense) {
        // The first row of a decoder has seen nothing but itself.
        (true, _) => vec![Pooling::Last, Pooling::Mean],
        (false, true) => vec![Pooling::Mean, Pooling::Cls, Pooling::First],
        (false, false) => vec![Pooling::Mean, Pooling::First],
    };
    let sites = architecture.sites();
    let has_module = |module: &Module| module.is_linear() && sites.iter().any(|info| info.site.module == *module);
    let modules = Module::ALL.into_iter().filter(has_module);
    Ok(BaseModelInfo {
        name: name.to_string(),
        model_type: family.model_type.to_string(),
        fingerprint: String::new(),
        parameters: 0,
        hidden_size: dimensions.hidden_size,
        layers: dimensions.layers,
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

/// Where sentence-transformers says how it pools.
const POOLING_CONFIG_FILE: &str = "1_Pooling/config.json";

/// sentence-transformers' `1_Pooling/config.json` decides; without one, the pooler where there is one that is read, and in a
/// decoder the last token.
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
        // Its own default.
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

/// What its settings of pooling begin with.
const POOLING_MODE_PREFIX: &str = "pooling_mode_";

/// Refuses what would make other embeddings of the bare base than its own.
fn unsupported_setting<T>(file: &str, setting: &str) -> Result<T> {
    let advice = format!("take {file} out of the folder to use the base without it");
    Err(Error::invalid("unsupported_model", format!("{file}: {setting} is not supported; {advice}")))
}

/// The modules of sentence-transformers that are computed.
const SUPPORTED_MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// Whether sentence-transformers' `modules.json` ends in a `Normalize`: then the bare base's embeddings have length 1.
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
