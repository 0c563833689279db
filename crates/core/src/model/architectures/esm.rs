//! ESM-2 (Lin et al. 2023), which reads proteins: rotary positions, pre-norm layers, a norm after the last, and embeddings
//! scaled for the share of masked tokens that they were trained with. Its contact head is not read.

mod layer;

use super::bert;
use crate::error::Result;
use crate::model::architecture::{self, Architecture, LoadedArchitecture, ModelDimensions};
use crate::model::hooked_ops::{self, HookedNorm};
use crate::model::loader::{self, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use crate::model::{Batch, Hooks, Module, RequiredRows, Site, SiteInfo, pooler};
use espalier_tensor::backend::{FrozenEmbedding, FrozenLinear};
use espalier_tensor::rotary::{self, RotaryTable};
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var};
use layer::Layer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

/// The fields of `config.json` that change arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "default_rope_theta")]
    rope_theta: f64,
    #[serde(default = "default_position_embedding_type")]
    position_embedding_type: String,
    #[serde(default)]
    emb_layer_norm_before: Option<bool>,
    #[serde(default)]
    token_dropout: Option<bool>,
    #[serde(default)]
    mask_token_id: Option<u32>,
    #[serde(default)]
    is_folding_model: Option<bool>,
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_position_embedding_type() -> String {
    "absolute".to_string()
}

impl Config {
    fn check(&self) -> Result<()> {
        architecture::require_value("esm", "position_embedding_type", &self.position_embedding_type, "rotary")?;
        if self.is_folding_model == Some(true) {
            return architecture::unsupported_model("is_folding_model is not supported for esm".to_string());
        }
        architecture::require_even_head_dim(self.hidden_size, self.num_attention_heads)
    }
}

pub struct Esm {
    config: Config,
    word_embeddings: FrozenEmbedding,
    /// Before the first layer, in some.
    embedding_norm: Option<HookedNorm>,
    layers: Vec<Layer>,
    /// After the last.
    final_norm: HookedNorm,
    pooler: Option<Arc<FrozenLinear>>,
}

/// Our name for a checkpoint's tensor: without the `esm.` prefix, `None` for heads and buffers.
pub fn canonical_name(name: &str) -> Option<String> {
    loader::strip_model_prefix(name, "esm.", &bert::ENCODER_PREFIXES)
}

pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = architecture::parse_config(config)?;
    config.check()?;
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let frequencies = rotary::inverse_frequencies(config.rope_theta, hidden / heads);
    let rotation = RotaryTable::new(backend, config.max_position_embeddings, &frequencies, 1.0)?;
    let rotation = Arc::new(rotation);
    let mut loader = CheckpointLoader::new(weights, backend, config.layer_norm_eps);
    let word_embeddings = loader.embedding("embeddings.word_embeddings", config.vocab_size, hidden)?;
    let embedding_norm = match config.emb_layer_norm_before {
        Some(true) => Some(loader.norm("embeddings.layer_norm", hidden)?),
        _ => None,
    };
    let intermediate = config.intermediate_size;
    let layer = |index| Layer::load(&mut loader, index, [hidden, intermediate, heads], Arc::clone(&rotation));
    let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?;
    let final_norm = loader.norm("encoder.emb_layer_norm_after", hidden)?;
    let pooler = loader.pooler(hidden)?;
    LoadedArchitecture::new(
        Esm { config: config.clone(), word_embeddings, embedding_norm, layers, final_norm, pooler },
        &config,
    )
}

/// The share of tokens that ESM was trained to see as something else than themselves.
const MASK_RATIO_TRAIN: f32 = 0.15 * 0.8;
const EMBEDDING_NORM_SITE: Site = Site { layer: None, module: Module::EmbeddingNorm };

impl Esm {
    /// What each real token's word embedding is multiplied by: 0 for masked ones, and for the others what makes up for
    /// there being fewer masked ones than in training. Sequences behind virtual tokens are left alone, as in transformers,
    /// where these come as embeddings, of which it is not known what is masked.
    fn token_dropout_scales(&self, batch: &Batch, prompted_sequences: &[Range<usize>]) -> Option<Vec<f32>> {
        if self.config.token_dropout != Some(true) {
            return None;
        }
        let is_masked = |id: &u32| Some(*id) == self.config.mask_token_id;
        let of = |(sequence, rows): (usize, Range<usize>)| {
            let ids = &batch.ids[rows];
            let observed_mask_ratio = ids.iter().filter(|id| is_masked(id)).count() as f32 / ids.len() as f32;
            let scale = (1.0 - MASK_RATIO_TRAIN) / (1.0 - observed_mask_ratio);
            let has_prompt = prompted_sequences.iter().any(|range| range.contains(&sequence));
            ids.iter().map(move |id| match (has_prompt, is_masked(id)) {
                (true, _) => 1.0,
                (false, true) => 0.0,
                (false, false) => scale,
            })
        };
        Some(batch.layout.row_ranges().enumerate().flat_map(of).collect())
    }

    fn final_norm_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for Esm {
    fn dimensions(&self) -> ModelDimensions {
        ModelDimensions {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.num_attention_heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.max_position_embeddings,
        }
    }

    fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        let mut words = tape.embed(&[(&self.word_embeddings, &batch.ids)], Arc::clone(&batch.layout))?;
        let prompts = hooks.soft_prompts(tape, 0..batch.layout.num_sequences())?;
        let prompted_sequences: Vec<Range<usize>> = prompts.iter().map(|front| front.sequences.clone()).collect();
        if let Some(scales) = self.token_dropout_scales(batch, &prompted_sequences) {
            let width = self.word_embeddings.width;
            let values = scales.iter().flat_map(|scale| std::iter::repeat_n(*scale, width)).collect();
            let scales =
                tape.constant_from_host(&Tensor::new([scales.len(), width], values), Arc::clone(&batch.layout))?;
            words = tape.mul_constant(words, scales)?;
        }
        if !prompts.is_empty() {
            words = tape.prepend_rows(words, &prompts)?;
        }
        match &self.embedding_norm {
            Some(norm) => hooked_ops::norm(tape, hooks, EMBEDDING_NORM_SITE, norm, words, None),
            None => Ok(words),
        }
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
        self.pooler.is_some()
    }

    fn forward_pooler(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var> {
        pooler::forward(self.pooler.as_ref(), tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.weights.sites()).collect();
        sites.push(self.final_norm.site_info(self.final_norm_site(), "esm.encoder.emb_layer_norm_after"));
        let norm = self.embedding_norm.iter();
        sites.extend(norm.map(|norm| norm.site_info(EMBEDDING_NORM_SITE, "esm.embeddings.layer_norm")));
        sites.extend(self.pooler.iter().map(|map| pooler::site_info(map, "esm")));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let norms = self.embedding_norm.iter().chain([&self.final_norm]).flat_map(|norm| norm.weighted.buffers());
        let layers = self.layers.iter().flat_map(|layer| layer.weights.buffers());
        let pooler = self.pooler.iter().flat_map(|map| map.buffers());
        self.word_embeddings.buffers().chain(norms).chain(layers).chain(pooler).collect()
    }

    fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        match site.module {
            Module::Pooler => self.pooler.as_ref(),
            module => self.layer(site)?.weights.linear_at(module),
        }
    }

    fn norm_at(&self, site: Site) -> Option<&HookedNorm> {
        match site.module {
            Module::EmbeddingNorm => self.embedding_norm.as_ref(),
            Module::FinalNorm => Some(&self.final_norm),
            module => self.layer(site)?.weights.norm_at(module),
        }
    }
}
