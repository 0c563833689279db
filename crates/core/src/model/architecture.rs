//! What a base model must be able to do, and the table of those that can be loaded, by `model_type` of `config.json`.
//!
//! Knows nothing of tokenizers, pooling or adapters' insides.

use super::adapted::Norm;
use super::head::HeadForm;
use super::loader::Order;
use super::weights::Weights;
use super::{Batch, Hooks, Site, SiteInfo, Wanted, bert, distilbert, esm, gpt2, llama, modernbert, mpnet, roberta};
use crate::error::{Context, Error, Result};
use espalier_tensor::kernels::FrozenLinear;
use espalier_tensor::{Buffer, Kernels, Rows, Tape, Tensor, past};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

/// How large a base model is.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub hidden_size: usize,
    pub layers: usize,
    pub attention_heads: usize,
    pub vocabulary_size: usize,
    /// Tokens in the longest sequence that it can read.
    pub max_tokens: usize,
}

/// A transformer, written once, forward only, against the tape. It knows an adapter only as [`Hooks`].
///
/// # Errors
/// Every function: only what the device reports, but where it says so.
pub trait Architecture: Send + Sync {
    fn facts(&self) -> Facts;

    /// What goes into the first layer `(tokens, hidden)`.
    fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows>;

    /// Rows of the word embeddings `(ids, hidden)`.
    fn words(&self, kernels: &dyn Kernels, ids: &[u32]) -> Result<Buffer>;

    /// The word embeddings as a linear map to the vocabulary, where they are that without a copy.
    fn tied(&self, _kernels: &dyn Kernels, _bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        Ok(None)
    }

    /// Some neighbouring layers: `(tokens, hidden)` → `(tokens, hidden)`, or after the last layer, where no others are
    /// wanted, that of the first or the last tokens alone, `(sequences, hidden)`.
    fn layers(
        &self,
        tape: &mut Tape,
        hidden: Rows,
        range: Range<usize>,
        hooks: &dyn Hooks,
        wanted: Wanted,
    ) -> Result<Rows>;

    /// Whether a row knows only what came before it: a decoder.
    fn is_causal(&self) -> bool {
        false
    }

    /// What is remembered of a row, where sequences can be continued.
    fn past(&self) -> Option<past::Form> {
        None
    }

    /// Whether the checkpoint has BERT's pooler.
    fn has_pooler(&self) -> bool;

    /// The first token of each sequence through the pooler: `(sequences, hidden)`.
    ///
    /// # Errors
    /// `Invalid` (`no_pooler`) where there is none.
    fn pooler(&self, tape: &mut Tape, hidden: Rows, hooks: &dyn Hooks) -> Result<Rows>;

    /// Every linear map and norm of the layers, those before and after them last.
    fn sites(&self) -> Vec<SiteInfo>;

    /// Every frozen tensor on the device.
    fn buffers(&self) -> Vec<&Buffer>;

    /// The frozen linear map at a site.
    fn map(&self, site: Site) -> Option<&Arc<FrozenLinear>>;

    /// The frozen norm at a site.
    fn norm(&self, site: Site) -> Option<&Norm>;
}

/// An architecture, and the fields of its config that change arithmetic.
pub struct Loaded {
    pub architecture: Box<dyn Architecture>,
    pub config: Value,
}

impl Loaded {
    pub fn new(architecture: impl Architecture + 'static, config: &impl Serialize) -> Result<Self> {
        let config = serde_json::to_value(config).context("writing the config down")?;
        Ok(Self { architecture: Box::new(architecture), config })
    }
}

/// A row of the table.
pub struct Family {
    pub model_type: &'static str,
    pub head: HeadForm,
    /// How its checkpoints keep linear maps.
    pub order: Order,
    /// Our name for a checkpoint's tensor, `None` for heads and buffers.
    pub canonical: fn(&str) -> Option<String>,
    pub load: fn(Value, &mut Weights, &dyn Kernels) -> Result<Loaded>,
}

const fn row(
    model_type: &'static str,
    head: HeadForm,
    canonical: fn(&str) -> Option<String>,
    load: fn(Value, &mut Weights, &dyn Kernels) -> Result<Loaded>,
) -> Family {
    Family { model_type, head, order: Order::OutputInput, canonical, load }
}

const FAMILIES: [Family; 13] = [
    row("bert", HeadForm::POOLED, bert::canonical, bert::load),
    row("roberta", HeadForm::TANH, roberta::canonical, roberta::load),
    row("xlm-roberta", HeadForm::TANH, roberta::canonical, roberta::load),
    row("camembert", HeadForm::TANH, roberta::canonical, roberta::load),
    row("distilbert", HeadForm::RELU, distilbert::canonical, distilbert::load),
    row("esm", HeadForm::TANH, esm::canonical, esm::load),
    row("modernbert", HeadForm::POOLED, modernbert::canonical, modernbert::load),
    row("mpnet", HeadForm::TANH, mpnet::canonical, mpnet::load),
    row("llama", HeadForm::SCORE, llama::canonical, llama::load),
    row("mistral", HeadForm::SCORE, llama::canonical, llama::load),
    row("qwen2", HeadForm::SCORE, llama::canonical, llama::load),
    row("qwen3", HeadForm::SCORE, llama::canonical, llama::load),
    Family { order: Order::InputOutput, ..row("gpt2", HeadForm::SCORE, gpt2::canonical, gpt2::load) },
];

/// The `model_type`s that can be loaded.
pub const SUPPORTED: [&str; FAMILIES.len()] = {
    let mut names = [""; FAMILIES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = FAMILIES[index].model_type;
        index += 1;
    }
    names
};

/// The row of the table for a `model_type`.
pub fn by_type(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.model_type == model_type)
}

/// The row of the table for a `config.json`.
///
/// # Errors
/// `Invalid` (`unsupported_model`) where there is none, with those that there are, or the model is a decoder.
pub fn family(config: &Value) -> Result<&'static Family> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let Some(family) = by_type(model_type) else {
        let supported = SUPPORTED.join(", ");
        return unsupported(format!("model_type \"{model_type}\" is not supported; supported are: {supported}"));
    };
    if config["is_decoder"].as_bool() == Some(true) {
        return unsupported(format!("is_decoder is not supported for {model_type}: only encoders are"));
    }
    Ok(family)
}

/// Reads the fields that an architecture knows.
pub fn read<T: DeserializeOwned>(config: Value) -> Result<T> {
    serde_json::from_value(config)
        .map_err(|error| Error::invalid("base_model_damaged", format!("config.json of the base model: {error}")))
}

/// # Errors
/// `Invalid` (`unsupported_model`), always.
pub fn unsupported<T>(what: String) -> Result<T> {
    Err(Error::invalid("unsupported_model", what))
}

/// Refuses a field of `config.json` that is not the one value that is computed.
///
/// # Errors
/// `Invalid` (`unsupported_model`) naming the field.
pub fn only(model_type: &str, field: &str, given: &str, supported: &str) -> Result<()> {
    if given == supported {
        return Ok(());
    }
    unsupported(format!("{field} \"{given}\" is not supported for {model_type}: only \"{supported}\" is"))
}

/// Refuses heads whose numbers do not come in pairs, which rotary positions turn.
///
/// # Errors
/// `Invalid` (`unsupported_model`) naming the fields.
pub fn even(width: usize, heads: usize) -> Result<()> {
    divisible(width, heads)?;
    if (width / heads).is_multiple_of(2) {
        return Ok(());
    }
    unsupported("hidden_size must be an even multiple of num_attention_heads".to_string())
}

/// Refuses heads that do not fill the width.
///
/// # Errors
/// `Invalid` (`unsupported_model`) naming the fields.
pub fn divisible(width: usize, heads: usize) -> Result<()> {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(());
    }
    unsupported("hidden_size must be a multiple of num_attention_heads".to_string())
}
