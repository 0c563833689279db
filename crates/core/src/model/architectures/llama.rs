//! The Llama family (Touvron et al. 2023), by its config: Llama 2 and 3, SmolLM, Mistral, Qwen 2 and 3. Pre-norm decoders
//! with rotary positions, gated networks, and heads of queries that may share keys and values.

mod config;
mod layer;
mod rope;

use crate::error::Result;
use crate::model::architecture::{self, Architecture, LoadedArchitecture, ModelDimensions};
use crate::model::hooked_ops::{self, HookedNorm};
use crate::model::loader::{self, BiasPresence, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use crate::model::{Batch, Hooks, Module, RequiredRows, Site, SiteInfo, embeddings, pooler};
use config::{Config, RawConfig};
use espalier_tensor::backend::{FrozenEmbedding, FrozenLinear};
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var, kv_cache};
use layer::{AttentionVariants, Layer};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

pub struct Llama {
    config: Config,
    word_embeddings: FrozenEmbedding,
    layers: Vec<Layer>,
    /// After the last.
    final_norm: HookedNorm,
}

/// Our name for a checkpoint's tensor: without the `model.` prefix, `None` for heads.
pub fn canonical_name(name: &str) -> Option<String> {
    loader::strip_model_prefix(name, "model.", &["embed_tokens.", "layers.", "norm."])
}

pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config = architecture::parse_config::<RawConfig>(config)?.resolve()?;
    let variants = AttentionVariants::new(backend, &config)?;
    let mut loader = CheckpointLoader::with_rms_norm(weights, backend, config.rms_norm_eps);
    let word_embeddings = loader.embedding("embed_tokens", config.vocab_size, config.hidden_size)?;
    let layers = (0..config.attention_kinds.len()).map(|index| Layer::load(&mut loader, index, &config, &variants));
    let layers = layers.collect::<Result<_>>()?;
    let final_norm = loader.norm_with_optional_bias("norm", config.hidden_size, BiasPresence::Absent)?;
    LoadedArchitecture::new(Llama { config: config.clone(), word_embeddings, layers, final_norm }, &config)
}

impl Llama {
    fn final_norm_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for Llama {
    fn dimensions(&self) -> ModelDimensions {
        ModelDimensions {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.max_tokens(),
        }
    }

    fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        embeddings::embed_with_prompts(tape, &self.word_embeddings, batch, hooks)
    }

    fn embedding_rows(&self, backend: &dyn Backend, ids: &[u32]) -> Result<Buffer> {
        Ok(backend.embed(&[(&self.word_embeddings, ids)], None)?)
    }

    fn tied_lm_head(&self, backend: &dyn Backend, bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        Ok(backend.tie_embeddings(&self.word_embeddings, bias)?)
    }

    fn forward_layers(
        &self,
        tape: &mut Tape,
        mut hidden: Var,
        range: Range<usize>,
        hooks: &dyn Hooks,
        required_rows: RequiredRows,
    ) -> Result<Var> {
        let layers_start = tape.position();
        for index in range {
            let is_last = index + 1 == self.layers.len();
            let required_rows = if is_last { required_rows } else { RequiredRows::All };
            hidden = self.layers[index].forward(tape, hidden, hooks, required_rows)?;
            if is_last {
                hidden = hooked_ops::norm(tape, hooks, self.final_norm_site(), &self.final_norm, hidden, None)?;
            }
            tape.release_since(layers_start, hidden);
        }
        Ok(hidden)
    }

    fn is_causal(&self) -> bool {
        true
    }

    fn kv_cache_shape(&self) -> Option<kv_cache::KvCacheShape> {
        let config = &self.config;
        Some(kv_cache::KvCacheShape { layers: self.layers.len(), kv_heads: config.kv_heads, head_dim: config.head_dim })
    }

    fn has_pooler(&self) -> bool {
        false
    }

    fn forward_pooler(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var> {
        pooler::forward(None, tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.weights.sites()).collect();
        sites.push(self.final_norm.site_info(self.final_norm_site(), "model.norm"));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let layers = self.layers.iter().flat_map(Layer::buffers);
        self.word_embeddings.buffers().chain(self.final_norm.weighted.buffers()).chain(layers).collect()
    }

    fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        self.layer(site)?.weights.linear_at(site.module)
    }

    fn norm_at(&self, site: Site) -> Option<&HookedNorm> {
        match site.module {
            Module::FinalNorm => Some(&self.final_norm),
            module => self.layer(site)?.weights.norm_at(module),
        }
    }
}
