//! GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions. Its checkpoints keep linear maps as (input, output).

mod config;
mod layer;

use crate::error::Result;
use crate::model::architecture::{self, Architecture, LoadedArchitecture, ModelDimensions};
use crate::model::hooked_ops::{self, HookedNorm};
use crate::model::loader::{self, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use crate::model::{Batch, Hooks, Module, RequiredRows, Site, SiteInfo, embeddings, pooler};
use config::{Config, RawConfig};
use espalier_tensor::backend::{FrozenEmbedding, FrozenLinear};
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::{Backend, Buffer, RaggedLayout, Tape, Tensor, Var, kv_cache};
use layer::Layer;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

pub struct Gpt2 {
    config: Config,
    word_embeddings: FrozenEmbedding,
    position_embeddings: FrozenEmbedding,
    layers: Vec<Layer>,
    /// After the last.
    final_norm: HookedNorm,
}

/// Our name for a checkpoint's tensor: without the `transformer.` prefix, `None` for heads and for the masks of attention
/// that older checkpoints have.
pub fn canonical_name(name: &str) -> Option<String> {
    let canonical = loader::strip_model_prefix(name, "transformer.", &["wte.", "wpe.", "h.", "ln_f."])?;
    (!canonical.ends_with(".attn.bias") && !canonical.ends_with(".attn.masked_bias")).then_some(canonical)
}

pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let raw = architecture::parse_config::<RawConfig>(config)?;
    let (weight_layout, config) = (raw.weight_layout(), raw.resolve()?);
    let mut loader =
        CheckpointLoader::new(weights, backend, config.layer_norm_epsilon).with_weight_layout(weight_layout);
    let word_embeddings = loader.embedding("wte", config.vocab_size, config.hidden_size)?;
    let position_embeddings = loader.embedding("wpe", config.max_positions, config.hidden_size)?;
    let layers = (0..config.layers).map(|index| Layer::load(&mut loader, index, &config));
    let layers = layers.collect::<Result<_>>()?;
    let final_norm = loader.norm("ln_f", config.hidden_size)?;
    LoadedArchitecture::new(
        Gpt2 { config: config.clone(), word_embeddings, position_embeddings, layers, final_norm },
        &config,
    )
}

impl Gpt2 {
    fn final_norm_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for Gpt2 {
    fn dimensions(&self) -> ModelDimensions {
        ModelDimensions {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.max_positions,
        }
    }

    fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        let rows = embeddings::embed_with_prompts(tape, &self.word_embeddings, batch, hooks)?;
        let positions = token_positions(batch, &tape.layout(rows), tape.kv_caches());
        Ok(tape.add_embeddings(&[(&self.position_embeddings, &positions)], rows)?)
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
        let width = self.config.hidden_size / self.config.heads;
        Some(kv_cache::KvCacheShape { layers: self.layers.len(), kv_heads: self.config.heads, head_dim: width })
    }

    fn has_pooler(&self) -> bool {
        false
    }

    fn forward_pooler(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var> {
        pooler::forward(None, tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.weights.sites()).collect();
        sites.push(self.final_norm.site_info(self.final_norm_site(), "transformer.ln_f"));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let tables = [&self.word_embeddings, &self.position_embeddings].into_iter().flat_map(FrozenEmbedding::buffers);
        let layers = self.layers.iter().flat_map(|layer| layer.weights.buffers());
        tables.chain(self.final_norm.weighted.buffers()).chain(layers).collect()
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

/// Of all rows, virtual tokens among them: a sequence that has begun goes on where its past ends.
fn token_positions(batch: &Batch, layout: &RaggedLayout, kv_caches: Option<&[SequenceKvCache]>) -> Vec<u32> {
    let Some(pasts) = kv_caches else { return batch.positions.clone() };
    let of = |(rows, kv_cache): (Range<usize>, &SequenceKvCache)| {
        let first_position = match kv_cache.is_empty() {
            true => batch.positions[rows.start],
            false => kv_cache.next_position() as u32,
        };
        first_position..first_position + rows.len() as u32
    };
    layout.row_ranges().zip(pasts).flat_map(of).collect()
}
