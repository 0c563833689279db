//! Sites: the linear maps and norms of a base model that an adapter can target.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One linear map or norm of the base model. `layer` is `None` for modules outside of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    pub layer: Option<usize>,
    pub module: Module,
}

/// Canonical names of the linear maps and norms of a transformer. Each architecture maps the tensor names of its checkpoints
/// to them. The order of the variants enters [`Site::dropout_site_id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Module {
    Query,
    Key,
    Value,
    /// Fused projection of query, key and value.
    QueryKeyValue,
    AttentionOutput,
    /// Up projection.
    FeedForwardIn,
    /// Gate projection of a gated linear unit; its activation multiplies the up projection.
    FeedForwardGate,
    /// Fused gate and up projection.
    FeedForwardGateIn,
    /// Down projection.
    FeedForwardOut,
    Pooler,
    EmbeddingNorm,
    /// Norm before (pre-norm) or after (post-norm) attention.
    AttentionNorm,
    /// Norm before (pre-norm) or after (post-norm) the feed-forward network.
    FeedForwardNorm,
    /// Norm after the last layer. Its site belongs to the last layer.
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

    /// Whether the module is a linear map; the others are norms.
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
    pub const EMBEDDING_NORM: Self = Self { layer: None, module: Module::EmbeddingNorm };
    pub const POOLER: Self = Self { layer: None, module: Module::Pooler };

    /// Unique number of the site; part of the seed of its dropout mask.
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

/// Shape and checkpoint path of a site. A norm has as many output features as input features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteInfo {
    pub site: Site,
    pub in_features: usize,
    pub out_features: usize,
    /// Whether the checkpoint has a bias for this linear map or norm.
    pub has_bias: bool,
    /// Path of the module in transformers' model *with a head*, for example `bert.encoder.layer.0.attention.self.query`.
    /// PEFT's suffix and regex rules are matched against it.
    pub module_path: String,
}

/// First part of the base model that an adapter changes. Everything below it gives the same output for every step, so training
/// computes it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirstTrainableLayer {
    /// The embeddings, their norm, or the positions of the tokens.
    Embeddings,
    /// A module of this layer, counted from 0.
    Layer(usize),
    /// The pooler of the architecture.
    Pooler,
    /// The head alone.
    Head,
}

impl FirstTrainableLayer {
    /// The first layer among `sites`; `Head` if there are none.
    pub fn of_sites(sites: impl IntoIterator<Item = Site>) -> Self {
        let layer_of = |site: Site| match (site.layer, site.module) {
            (Some(layer), _) => Self::Layer(layer),
            (None, Module::EmbeddingNorm) => Self::Embeddings,
            (None, _) => Self::Pooler,
        };
        sites.into_iter().map(layer_of).min().unwrap_or(Self::Head)
    }
}
