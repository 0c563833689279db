//! ModernBERT (Warner et al. 2024): rotary positions, pre-norm layers, gated networks, and attention that is local in most
//! layers. It has neither positions nor types among its embeddings, and no pooler.

mod config;
mod layer;

use crate::error::Result;
use crate::model::architecture::{self, Architecture, LoadedArchitecture, ModelDimensions};
use crate::model::hooked_ops::{self, HookedNorm};
use crate::model::loader::{self, BiasPresence, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use crate::model::{Batch, Hooks, Module, RequiredRows, Site, SiteInfo, embeddings, pooler};
use config::{Config, RawConfig};
use espalier_tensor::backend::{FrozenEmbedding, FrozenLinear};
use espalier_tensor::{Backend, Buffer, Tape, Var};
use layer::{AttentionVariants, Layer};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

pub struct ModernBert {
    config: Config,
    word_embeddings: FrozenEmbedding,
    embedding_norm: HookedNorm,
    layers: Vec<Layer>,
    /// After the last.
    final_norm: HookedNorm,
}

/// Our name for a checkpoint's tensor: without the `model.` prefix, `None` for heads.
pub fn canonical_name(name: &str) -> Option<String> {
    loader::strip_model_prefix(name, "model.", &["embeddings.", "layers.", "final_norm."])
}

pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config = architecture::parse_config::<RawConfig>(config)?.resolve()?;
    let variants = AttentionVariants::new(backend, &config)?;
    let mut loader = CheckpointLoader::new(weights, backend, config.norm_eps);
    let word_embeddings = loader.embedding("embeddings.tok_embeddings", config.vocab_size, config.hidden_size)?;
    let bias = BiasPresence::from_flag(config.norm_bias);
    let embedding_norm = loader.norm_with_optional_bias("embeddings.norm", config.hidden_size, bias)?;
    let layers = (0..config.attention_kinds.len()).map(|index| Layer::load(&mut loader, index, &config, &variants));
    let layers = layers.collect::<Result<_>>()?;
    let final_norm = loader.norm_with_optional_bias("final_norm", config.hidden_size, bias)?;
    LoadedArchitecture::new(
        ModernBert { config: config.clone(), word_embeddings, embedding_norm, layers, final_norm },
        &config,
    )
}

const EMBEDDING_NORM_SITE: Site = Site { layer: None, module: Module::EmbeddingNorm };

impl ModernBert {
    fn final_norm_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for ModernBert {
    fn dimensions(&self) -> ModelDimensions {
        ModelDimensions {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.max_position_embeddings,
        }
    }

    fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        let words = embeddings::embed_with_prompts(tape, &self.word_embeddings, batch, hooks)?;
        hooked_ops::norm(tape, hooks, EMBEDDING_NORM_SITE, &self.embedding_norm, words, None)
    }

    fn embedding_rows(&self, backend: &dyn Backend, ids: &[u32]) -> Result<Buffer> {
        Ok(backend.embed(&[(&self.word_embeddings, ids)], None)?)
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

    fn has_pooler(&self) -> bool {
        false
    }

    fn forward_pooler(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var> {
        pooler::forward(None, tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.weights.sites()).collect();
        sites.push(self.final_norm.site_info(self.final_norm_site(), "model.final_norm"));
        sites.push(self.embedding_norm.site_info(EMBEDDING_NORM_SITE, "model.embeddings.norm"));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let norms = [&self.embedding_norm, &self.final_norm].into_iter().flat_map(|norm| norm.weighted.buffers());
        let layers = self.layers.iter().flat_map(|layer| layer.weights.buffers());
        self.word_embeddings.buffers().chain(norms).chain(layers).collect()
    }

    fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        self.layer(site)?.weights.linear_at(site.module)
    }

    fn norm_at(&self, site: Site) -> Option<&HookedNorm> {
        match site.module {
            Module::EmbeddingNorm => Some(&self.embedding_norm),
            Module::FinalNorm => Some(&self.final_norm),
            module => self.layer(site)?.weights.norm_at(module),
        }
    }
}
