//! Forward pass of a transformer: embeddings, layers, final norm and pooler.

use super::embeddings::Embeddings;
use super::hooks::{HookedNorm, Hooks};
use super::layer_weights::LayerWeights;
use super::pooling::{Pooler, RequiredRows};
use super::site::{Module, Site, SiteInfo};
use super::tokens::Batch;
use crate::error::{Error, Result};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::kv_cache::KvCacheShape;
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var};
use std::ops::Range;
use std::sync::Arc;

/// One layer of an architecture.
///
/// # Errors
/// Only errors of the backend.
pub trait Layer: Send + Sync {
    /// Computes the layer for all rows `(rows, hidden)`, or for the required rows of each sequence alone
    /// `(sequences, hidden)`; those still attend to all rows.
    fn forward(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks, required_rows: RequiredRows) -> Result<Var>;

    /// Linear maps and norms that adapters can target.
    fn weights(&self) -> &LayerWeights;

    /// Frozen buffers that are not in [`Self::weights`].
    fn other_buffers(&self) -> Vec<&Buffer> {
        Vec::new()
    }
}

/// Size of a base model.
#[derive(Debug, Clone, Copy)]
pub struct ModelDimensions {
    pub hidden_size: usize,
    pub attention_heads: usize,
    pub vocabulary_size: usize,
    /// Maximum sequence length in tokens.
    pub max_tokens: usize,
}

/// Norm after the last layer.
pub struct FinalNorm {
    pub norm: HookedNorm,
    /// Path in the model with a head.
    pub module_path: String,
}

/// Key and value heads of a decoder's KV cache.
#[derive(Debug, Clone, Copy)]
pub struct KvHeads {
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// Layer stack of the base model with its embeddings. The weights are frozen and there is no dropout; gradients flow through it to
/// the adapter.
///
/// # Errors
/// All functions return only errors of the backend, unless they say otherwise.
pub struct Stack {
    pub dimensions: ModelDimensions,
    pub embeddings: Embeddings,
    pub layers: Vec<Box<dyn Layer>>,
    pub final_norm: Option<FinalNorm>,
    pub pooler: Option<Pooler>,
    /// `None` for encoders.
    pub decoder: Option<KvHeads>,
}

impl Stack {
    /// Input of the first layer `(rows, hidden)`.
    pub fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        self.embeddings.forward(tape, batch, hooks)
    }

    /// Computes a range of layers: `(rows, hidden)` → `(rows, hidden)`, or after the last layer the required rows alone
    /// `(sequences, hidden)`.
    pub fn forward_layers(
        &self,
        tape: &mut Tape,
        mut hidden: Var,
        range: Range<usize>,
        hooks: &dyn Hooks,
        required_rows: RequiredRows,
    ) -> Result<Var> {
        let start = tape.position();
        for index in range {
            let is_last = index + 1 == self.layers.len();
            let required_rows = if is_last { required_rows } else { RequiredRows::All };
            hidden = self.layers[index].forward(tape, hidden, hooks, required_rows)?;
            if let (true, Some(FinalNorm { norm, .. })) = (is_last, &self.final_norm) {
                hidden = norm.forward(tape, hooks, self.final_norm_site(), hidden, None)?;
            }
            tape.release_since(start, hidden);
        }
        Ok(hidden)
    }

    /// Pools the first token of each sequence `(sequences, hidden)`.
    ///
    /// # Errors
    /// `Invalid` (`no_pooler`) if the checkpoint has no pooler.
    pub fn forward_pooler(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var> {
        let Some(pooler) = &self.pooler else {
            return Err(Error::invalid(
                "no_pooler",
                "this base model has no pooler: use \"mean\" or \"first\" pooling",
            ));
        };
        pooler.forward(tape, hidden, hooks)
    }

    /// Word embeddings as the output projection to the vocabulary, without a copy. `None` for encoders and if the backend
    /// needs a copy.
    pub fn tied_lm_head(&self, backend: &dyn Backend, bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        match self.decoder {
            Some(_) => Ok(backend.tie_embeddings(&self.embeddings.words, bias)?),
            None => Ok(None),
        }
    }

    pub fn is_causal(&self) -> bool {
        self.decoder.is_some()
    }

    /// Shape of the KV cache of one sequence; `None` for encoders.
    pub fn kv_cache_shape(&self) -> Option<KvCacheShape> {
        let shape = |KvHeads { kv_heads, head_dim }| KvCacheShape { layers: self.layers.len(), kv_heads, head_dim };
        self.decoder.map(shape)
    }

    /// Sites of the layers, then of the modules outside of them.
    pub fn sites(&self) -> Vec<SiteInfo> {
        let layers = self.layers.iter().flat_map(|layer| layer.weights().sites());
        let final_norm = self.final_norm.iter();
        let final_norm = final_norm
            .map(|FinalNorm { norm, module_path }| norm.site_info(self.final_norm_site(), module_path.clone()));
        layers.chain(final_norm).chain(self.embeddings.site()).chain(self.pooler.iter().map(Pooler::site)).collect()
    }

    /// All frozen buffers.
    pub fn buffers(&self) -> Vec<&Buffer> {
        let final_norm = self.final_norm.iter().flat_map(|final_norm| final_norm.norm.weighted.buffers());
        let layers = self.layers.iter().flat_map(|layer| layer.weights().buffers().chain(layer.other_buffers()));
        let pooler = self.pooler.iter().flat_map(|pooler| pooler.dense.buffers());
        self.embeddings.buffers().chain(final_norm).chain(layers).chain(pooler).collect()
    }

    /// The linear map at a site of [`Self::sites`]; `None` for norms.
    pub fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        match site.module {
            Module::Pooler => self.pooler.as_ref().map(|pooler| &pooler.dense),
            module => self.layer(site)?.weights().linear_at(module),
        }
    }

    /// The norm at a site of [`Self::sites`]; `None` for linear maps.
    pub fn norm_at(&self, site: Site) -> Option<&HookedNorm> {
        match site.module {
            Module::EmbeddingNorm => self.embeddings.norm(),
            Module::FinalNorm => self.final_norm.as_ref().map(|final_norm| &final_norm.norm),
            module => self.layer(site)?.weights().norm_at(module),
        }
    }

    fn final_norm_site(&self) -> Site {
        Site { layer: Some(self.layers.len().saturating_sub(1)), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&dyn Layer> {
        site.layer.and_then(|index| self.layers.get(index)).map(AsRef::as_ref)
    }
}
