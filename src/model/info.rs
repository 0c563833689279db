//! What a base model is and can do, as its folder and its architecture say.

use super::architecture::{Architecture, Family};
use super::weights::read_json;
use super::{HeadForm, Module, Pooling};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;
use utoipa::ToSchema;

/// What the loaded base is and can do: the body of `GET /base`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Info {
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
    /// Our names of the modules that LoRA may target.
    pub target_modules: Vec<String>,
    /// `candle-cpu`, …
    pub kernels: String,
}

impl Info {
    /// The head of its checkpoints for classification.
    pub fn head(&self) -> HeadForm {
        HeadForm::of(&self.model_type)
    }
}

/// All but what the weights and the kernels say.
pub(super) fn describe(folder: &Path, name: &str, family: &Family, architecture: &dyn Architecture) -> Result<Info> {
    let (facts, has_dense) = (architecture.facts(), family.head.dense.is_some());
    let reads_pooler = architecture.has_pooler() && !has_dense;
    let poolings = match reads_pooler || has_dense {
        true => vec![Pooling::Mean, Pooling::Cls, Pooling::First],
        false => vec![Pooling::Mean, Pooling::First],
    };
    let sites = architecture.sites();
    let has = |module: &Module| module.is_linear() && sites.iter().any(|info| info.site.module == *module);
    let modules = Module::ALL.into_iter().filter(has);
    Ok(Info {
        name: name.to_string(),
        model_type: family.model_type.to_string(),
        fingerprint: String::new(),
        parameters: 0,
        hidden_size: facts.hidden_size,
        layers: facts.layers,
        attention_heads: facts.attention_heads,
        vocabulary_size: facts.vocabulary_size,
        max_tokens: facts.max_tokens,
        default_pooling: default_pooling(folder, reads_pooler)?,
        poolings,
        sentence_encoder: folder.join(POOLING_FILE).is_file(),
        normalized_embedding: normalizes(folder)?,
        mask_token: None,
        target_modules: modules.map(|module| module.name().to_string()).collect(),
        kernels: String::new(),
    })
}

/// Where sentence-transformers says how it pools.
const POOLING_FILE: &str = "1_Pooling/config.json";

/// sentence-transformers' `1_Pooling/config.json` decides; without one, the pooler where there is one that is read.
fn default_pooling(folder: &Path, reads_pooler: bool) -> Result<Pooling> {
    let path = folder.join(POOLING_FILE);
    if !path.is_file() {
        return Ok(if reads_pooler { Pooling::Cls } else { Pooling::Mean });
    }
    let is_first = read_json(&path)?["pooling_mode_cls_token"].as_bool() == Some(true);
    Ok(if is_first { Pooling::First } else { Pooling::Mean })
}

/// Whether sentence-transformers' `modules.json` ends in a `Normalize`: then the bare base's embeddings have length 1.
fn normalizes(folder: &Path) -> Result<bool> {
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(false);
    }
    let modules = read_json(&path)?;
    let kinds = modules.as_array().into_iter().flatten().filter_map(|module| module["type"].as_str());
    Ok(kinds.into_iter().any(|kind| kind.ends_with(".Normalize")))
}
