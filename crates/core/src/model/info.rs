//! What a base model is and can do, as its folder and its architecture say.

use super::architecture::{self, Architecture, Family};
use super::loader::Order;
use super::weights::read_json;
use super::{HeadForm, Module, Pooling};
use crate::error::{Error, Result};
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
    /// Whether it says what comes next: a decoder whose checkpoint has a language model's head.
    #[serde(default)]
    pub generates: bool,
    /// Whether it takes conversations: its checkpoint has a chat template.
    #[serde(default)]
    pub chat: bool,
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

    /// What the classification model in transformers reads: the first token, or a decoder's last.
    pub fn classified_by(&self) -> Pooling {
        if self.poolings.contains(&Pooling::Last) { Pooling::Last } else { Pooling::Cls }
    }

    /// Whether transformers' model keeps linear maps as (input, output), which PEFT has to be told.
    pub fn fan_in_fan_out(&self) -> bool {
        architecture::by_type(&self.model_type).is_some_and(|family| family.order == Order::InputOutput)
    }
}

/// All but what the weights and the kernels say.
pub(super) fn describe(folder: &Path, name: &str, family: &Family, architecture: &dyn Architecture) -> Result<Info> {
    let (facts, has_dense) = (architecture.facts(), family.head.dense.is_some());
    let reads_pooler = architecture.has_pooler() && !has_dense;
    let poolings = match (architecture.is_causal(), reads_pooler || has_dense) {
        // The first row of a decoder has seen nothing but itself.
        (true, _) => vec![Pooling::Last, Pooling::Mean],
        (false, true) => vec![Pooling::Mean, Pooling::Cls, Pooling::First],
        (false, false) => vec![Pooling::Mean, Pooling::First],
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
        default_pooling: default_pooling(folder, &poolings, reads_pooler)?,
        poolings,
        sentence_encoder: folder.join(POOLING_FILE).is_file(),
        normalized_embedding: normalizes(folder)?,
        mask_token: None,
        generates: false,
        chat: false,
        target_modules: modules.map(|module| module.name().to_string()).collect(),
        kernels: String::new(),
    })
}

/// Where sentence-transformers says how it pools.
const POOLING_FILE: &str = "1_Pooling/config.json";

/// sentence-transformers' `1_Pooling/config.json` decides; without one, the pooler where there is one that is read, and in a
/// decoder the last token.
fn default_pooling(folder: &Path, poolings: &[Pooling], reads_pooler: bool) -> Result<Pooling> {
    let path = folder.join(POOLING_FILE);
    if !path.is_file() {
        return Ok(if reads_pooler { Pooling::Cls } else { poolings[0] });
    }
    let config = read_json(&path)?;
    let fields = config.as_object().into_iter().flatten();
    let mut modes = fields.filter(|(field, value)| field.starts_with(MODE) && value.as_bool() == Some(true));
    let pooling = match modes.next().map(|(mode, _)| &mode[MODE.len()..]) {
        // Its own default.
        None | Some("mean_tokens") => Pooling::Mean,
        Some("cls_token") => Pooling::First,
        Some("lasttoken") => Pooling::Last,
        Some(other) => return refuse(POOLING_FILE, &format!("{MODE}{other}")),
    };
    match modes.next() {
        Some((other, _)) => refuse(POOLING_FILE, &format!("{other} beside another")),
        None if poolings.contains(&pooling) => Ok(pooling),
        None => refuse(POOLING_FILE, "its pooling on this architecture"),
    }
}

/// What its settings of pooling begin with.
const MODE: &str = "pooling_mode_";

/// Refuses what would make other embeddings of the bare base than its own.
fn refuse<T>(file: &str, what: &str) -> Result<T> {
    let advice = format!("take {file} out of the folder to use the base without it");
    Err(Error::invalid("unsupported_model", format!("{file}: {what} is not supported; {advice}")))
}

/// The modules of sentence-transformers that are computed.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// Whether sentence-transformers' `modules.json` ends in a `Normalize`: then the bare base's embeddings have length 1.
fn normalizes(folder: &Path) -> Result<bool> {
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(false);
    }
    let modules = read_json(&path)?;
    let kinds = modules.as_array().into_iter().flatten().filter_map(|module| module["type"].as_str());
    let kinds: Vec<&str> = kinds.map(|kind| kind.rsplit('.').next().unwrap_or(kind)).collect();
    match kinds.iter().find(|kind| !MODULES.contains(kind)) {
        Some(other) => refuse("modules.json", &format!("the module {other}")),
        None => Ok(kinds.contains(&"Normalize")),
    }
}
