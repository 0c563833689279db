//! Where an adapter may touch the base.
//!
//! The base calls hooks at fixed, named places; each hook's default leaves the value alone, and `()` is the bare base.

use crate::error::Result;
use espalier_tensor::backend::FrozenNorm;
use espalier_tensor::channel_ops::PrependedRows;
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A named place in the base. `layer` is `None` where there is only one (`pooler`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    pub layer: Option<usize>,
    pub module: Module,
}

/// Our own names for the linear maps and norms of a transformer; each architecture maps its checkpoint's names to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Module {
    Query,
    Key,
    Value,
    /// The three in one, where the checkpoint has them so.
    QueryKeyValue,
    AttentionOutput,
    FeedForwardIn,
    /// What is multiplied with it after an activation, where the network is gated.
    FeedForwardGate,
    /// Both halves of a gated network's input in one.
    FeedForwardGateIn,
    FeedForwardOut,
    Pooler,
    EmbeddingNorm,
    /// After attention, or before it.
    AttentionNorm,
    /// After the feed-forward part, or before it.
    FeedForwardNorm,
    /// After the last layer, and counted to it.
    FinalNorm,
}

impl Module {
    pub const ALL: [Self; 14] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::QueryKeyValue,
        Self::AttentionOutput,
        Self::FeedForwardIn,
        Self::FeedForwardGate,
        Self::FeedForwardGateIn,
        Self::FeedForwardOut,
        Self::Pooler,
        Self::EmbeddingNorm,
        Self::AttentionNorm,
        Self::FeedForwardNorm,
        Self::FinalNorm,
    ];

    /// Whether it is a linear map; else it is a norm.
    pub fn is_linear(self) -> bool {
        !matches!(self, Self::EmbeddingNorm | Self::AttentionNorm | Self::FeedForwardNorm | Self::FinalNorm)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::QueryKeyValue => "query_key_value",
            Self::AttentionOutput => "attention_output",
            Self::FeedForwardIn => "feed_forward_in",
            Self::FeedForwardGate => "feed_forward_gate",
            Self::FeedForwardGateIn => "feed_forward_gate_in",
            Self::FeedForwardOut => "feed_forward_out",
            Self::Pooler => "pooler",
            Self::EmbeddingNorm => "embedding_norm",
            Self::AttentionNorm => "attention_norm",
            Self::FeedForwardNorm => "feed_forward_norm",
            Self::FinalNorm => "final_norm",
        }
    }
}

impl Site {
    /// A number of its own, for dropout.
    pub fn dropout_site_id(self) -> u64 {
        self.layer.map_or(0, |layer| layer as u64 + 1) * Module::ALL.len() as u64 + self.module as u64
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "layer.{layer}.{}", self.module.name()),
            None => write!(f, "{}", self.module.name()),
        }
    }
}

/// What a method is built against: a linear map of the base, `output × input`, or a norm, whose input is as wide as its
/// output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteInfo {
    pub site: Site,
    pub in_features: usize,
    pub out_features: usize,
    /// Whether the checkpoint has a bias there, or the norm's shift.
    pub has_bias: bool,
    /// The module's path in the checkpoint as transformers names it inside the *headed* model, for example
    /// `bert.encoder.layer.0.attention.self.query`: PEFT's suffix and regex rules are matched on it.
    pub module_path: String,
}

/// The lowest place that an adapter changes: below it the frozen base computes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirstTrainableLayer {
    /// The embeddings, their norm included, or the positions of the tokens.
    Embeddings,
    /// Something in this layer; the first is 0.
    Layer(usize),
    /// The architecture's own pooler.
    Pooler,
    /// Only what follows the pooled row.
    Head,
}

/// The lowest of some sites.
pub fn first_trainable_layer(sites: impl IntoIterator<Item = Site>) -> FirstTrainableLayer {
    let layer_of = |site: Site| match (site.layer, site.module) {
        (Some(layer), _) => FirstTrainableLayer::Layer(layer),
        (None, Module::EmbeddingNorm) => FirstTrainableLayer::Embeddings,
        (None, _) => FirstTrainableLayer::Pooler,
    };
    sites.into_iter().map(layer_of).min().unwrap_or(FirstTrainableLayer::Head)
}

/// What an adapter puts in front of every sequence. Real tokens are then counted on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtualTokens {
    #[default]
    Disabled,
    /// So many virtual tokens, which are embedded and go through all layers.
    Prompt(usize),
    /// So many keys and values in every layer.
    Prefix(usize),
}

impl VirtualTokens {
    /// Rows that go through the layers in front of a sequence's own.
    pub fn prompt_rows(self) -> usize {
        match self {
            Self::Prompt(count) => count,
            Self::Disabled | Self::Prefix(_) => 0,
        }
    }
}

/// Half of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sublayer {
    Attention,
    FeedForward,
}

/// Where a sublayer's output is about to be added to what went into it.
#[derive(Debug, Clone, Copy)]
pub struct SublayerContext<'a> {
    pub layer: usize,
    pub sublayer: Sublayer,
    /// What went in, and will be added.
    pub residual: Var,
    /// The norm of the sum, in architectures that have it there.
    pub norm: Option<&'a Arc<FrozenNorm>>,
}

/// Keys and values in front of sequences.
pub struct PrefixKeyValues {
    pub key: PrependedRows<Var>,
    pub value: PrependedRows<Var>,
}

/// An adapter as the base sees it. What it is given to change, it may change where it lies.
///
/// # Errors
/// Every function: only what the device reports.
pub trait Hooks: Send + Sync {
    /// The lowest place that this adapter changes.
    fn first_trainable_layer(&self) -> FirstTrainableLayer;

    /// Whether the output of this site is changed ([`Self::after`], or [`Self::norm`] for a norm). Everywhere else the
    /// base fuses freely and remembers nothing.
    fn has_output_hook(&self, _site: Site) -> bool {
        false
    }

    /// Whether what goes into the linear map is changed ([`Self::before`]).
    fn has_input_hook(&self, _site: Site) -> bool {
        false
    }

    fn has_sublayer_hook(&self, _layer: usize, _sublayer: Sublayer) -> bool {
        false
    }

    /// What goes into the linear map at `site`: a copy for this map alone.
    fn on_linear_input(&self, _tape: &mut Tape, _site: Site, input: Var) -> Result<Var> {
        Ok(input)
    }

    /// What came out of the linear map at `site`, given what went in. Low-rank updates of a part of a batch are put off: whatever
    /// else changes `output` comes after them, but nothing may read it.
    fn on_linear_output(&self, _tape: &mut Tape, _site: Site, _input: Var, output: Var) -> Result<Var> {
        Ok(output)
    }

    /// What came out of a norm, given its rows before gain and shift.
    fn on_norm_output(&self, _tape: &mut Tape, _site: Site, _normalised: Var, output: Var) -> Result<Var> {
        Ok(output)
    }

    /// A sublayer's output before residual and norm.
    fn on_sublayer_output(&self, _tape: &mut Tape, _context: &SublayerContext, output: Var) -> Result<Var> {
        Ok(output)
    }

    /// The virtual rows of the *word* embeddings, before position, type and norm, for these sequences.
    fn soft_prompts(&self, _tape: &mut Tape, _sequences: Range<usize>) -> Result<Vec<PrependedRows<Var>>> {
        Ok(Vec::new())
    }

    /// Keys and values in front of these sequences' own, as stored: no rotary applied.
    fn prefix_key_values(
        &self,
        _tape: &mut Tape,
        _layer: usize,
        _sequences: Range<usize>,
    ) -> Result<Vec<PrefixKeyValues>> {
        Ok(Vec::new())
    }

    /// A and B of every low-rank update that it makes.
    fn lora_pairs(&self) -> Vec<[ParamId; 2]> {
        Vec::new()
    }

    /// What stands in front of each sequence.
    fn virtual_tokens(&self) -> VirtualTokens {
        VirtualTokens::Disabled
    }
}

/// The bare base.
impl Hooks for () {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::Head
    }
}
