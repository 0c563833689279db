//! ESM-2 (Lin et al. 2023), which reads proteins: rotary positions, pre-norm layers, a norm after the last, and embeddings
//! scaled for the share of masked tokens that they were trained with. Its contact head is not read.

mod layer;

use super::adapted::{self, Norm};
use super::architecture::{self, Architecture, Facts, Loaded};
use super::loader::{self, Loader};
use super::weights::Weights;
use super::{Batch, Hooks, Module, Site, SiteInfo, Wanted, bert, pooler};
use crate::error::Result;
use espalier_tensor::kernels::{FrozenLinear, FrozenTable};
use espalier_tensor::rotary::{self, Rotation};
use espalier_tensor::{Buffer, Kernels, Rows, Tape, Tensor};
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
    #[serde(default = "default_theta")]
    rope_theta: f64,
    #[serde(default = "default_positions")]
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

fn default_theta() -> f64 {
    10_000.0
}

fn default_positions() -> String {
    "absolute".to_string()
}

impl Config {
    fn check(&self) -> Result<()> {
        architecture::only("esm", "position_embedding_type", &self.position_embedding_type, "rotary")?;
        if self.is_folding_model == Some(true) {
            return architecture::unsupported("is_folding_model is not supported for esm".to_string());
        }
        architecture::even(self.hidden_size, self.num_attention_heads)
    }
}

pub struct Esm {
    config: Config,
    word: FrozenTable,
    /// Before the first layer, in some.
    norm: Option<Norm>,
    layers: Vec<Layer>,
    /// After the last.
    last: Norm,
    pooler: Option<Arc<FrozenLinear>>,
}

/// Our name for a checkpoint's tensor: without the `esm.` prefix, `None` for heads and buffers.
pub fn canonical(name: &str) -> Option<String> {
    loader::behind(name, "esm.", &bert::STARTS)
}

pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let config: Config = architecture::read(config)?;
    config.check()?;
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let frequencies = rotary::frequencies(config.rope_theta, hidden / heads);
    let rotation = Rotation::new(kernels, config.max_position_embeddings, &frequencies, 1.0)?;
    let rotation = Arc::new(rotation);
    let mut loader = Loader::new(weights, kernels, config.layer_norm_eps);
    let word = loader.table("embeddings.word_embeddings", config.vocab_size, hidden)?;
    let norm = match config.emb_layer_norm_before {
        Some(true) => Some(loader.norm("embeddings.layer_norm", hidden)?),
        _ => None,
    };
    let wide = config.intermediate_size;
    let layer = |index| Layer::load(&mut loader, index, [hidden, wide, heads], Arc::clone(&rotation));
    let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?;
    let last = loader.norm("encoder.emb_layer_norm_after", hidden)?;
    let pooler = loader.pooler(hidden)?;
    Loaded::new(Esm { config: config.clone(), word, norm, layers, last, pooler }, &config)
}

/// The share of tokens that ESM was trained to see as something else than themselves.
const MASKED_IN_TRAINING: f32 = 0.15 * 0.8;
const EMBEDDING_NORM: Site = Site { layer: None, module: Module::EmbeddingNorm };

impl Esm {
    /// What each real token's word embedding is multiplied by: 0 for masked ones, and for the others what makes up for
    /// there being fewer masked ones than in training. Sequences behind virtual tokens are left alone, as in transformers,
    /// where these come as embeddings, of which it is not known what is masked.
    fn scales(&self, batch: &Batch, alone: &[Range<usize>]) -> Option<Vec<f32>> {
        if self.config.token_dropout != Some(true) {
            return None;
        }
        let is_masked = |id: &u32| Some(*id) == self.config.mask_token_id;
        let of = |(sequence, rows): (usize, Range<usize>)| {
            let ids = &batch.ids[rows];
            let masked = ids.iter().filter(|id| is_masked(id)).count() as f32 / ids.len() as f32;
            let scale = (1.0 - MASKED_IN_TRAINING) / (1.0 - masked);
            let is_alone = alone.iter().any(|range| range.contains(&sequence));
            ids.iter().map(move |id| match (is_alone, is_masked(id)) {
                (true, _) => 1.0,
                (false, true) => 0.0,
                (false, false) => scale,
            })
        };
        Some(batch.layout.ranges().enumerate().flat_map(of).collect())
    }

    fn last_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for Esm {
    fn facts(&self) -> Facts {
        Facts {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.num_attention_heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.max_position_embeddings,
        }
    }

    fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        let mut words = tape.embed(&[(&self.word, &batch.ids)], Arc::clone(&batch.layout))?;
        let prompts = hooks.prompt(tape, 0..batch.layout.sequences())?;
        let alone: Vec<Range<usize>> = prompts.iter().map(|front| front.sequences.clone()).collect();
        if let Some(scales) = self.scales(batch, &alone) {
            let width = self.word.width;
            let values = scales.iter().flat_map(|scale| std::iter::repeat_n(*scale, width)).collect();
            let scales = tape.upload(&Tensor::new([scales.len(), width], values), Arc::clone(&batch.layout))?;
            words = tape.times(words, scales)?;
        }
        if !prompts.is_empty() {
            words = tape.prepend(words, &prompts)?;
        }
        match &self.norm {
            Some(norm) => adapted::norm(tape, hooks, EMBEDDING_NORM, norm, words, None),
            None => Ok(words),
        }
    }

    fn words(&self, kernels: &dyn Kernels, ids: &[u32]) -> Result<Buffer> {
        Ok(kernels.embed(&[(&self.word, ids)], None)?)
    }

    fn layers(
        &self,
        tape: &mut Tape,
        mut hidden: Rows,
        range: Range<usize>,
        hooks: &dyn Hooks,
        wanted: Wanted,
    ) -> Result<Rows> {
        let start = tape.mark();
        for index in range {
            let is_last = index + 1 == self.layers.len();
            let wanted = if is_last { wanted } else { Wanted::All };
            hidden = self.layers[index].forward(tape, hidden, hooks, wanted)?;
            if is_last {
                hidden = adapted::norm(tape, hooks, self.last_site(), &self.last, hidden, None)?;
            }
            tape.release(start, hidden);
        }
        Ok(hidden)
    }

    fn has_pooler(&self) -> bool {
        self.pooler.is_some()
    }

    fn pooler(&self, tape: &mut Tape, hidden: Rows, hooks: &dyn Hooks) -> Result<Rows> {
        pooler::pool(self.pooler.as_ref(), tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.parts.sites()).collect();
        sites.push(self.last.site(self.last_site(), "esm.encoder.emb_layer_norm_after"));
        let norm = self.norm.iter();
        sites.extend(norm.map(|norm| norm.site(EMBEDDING_NORM, "esm.embeddings.layer_norm")));
        sites.extend(self.pooler.iter().map(|map| pooler::site(map, "esm")));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let norms = self.norm.iter().chain([&self.last]).flat_map(|norm| norm.whole.buffers());
        let layers = self.layers.iter().flat_map(|layer| layer.parts.buffers());
        let pooler = self.pooler.iter().flat_map(|map| map.buffers());
        self.word.buffers().chain(norms).chain(layers).chain(pooler).collect()
    }

    fn map(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        match site.module {
            Module::Pooler => self.pooler.as_ref(),
            module => self.layer(site)?.parts.map(module),
        }
    }

    fn norm(&self, site: Site) -> Option<&Norm> {
        match site.module {
            Module::EmbeddingNorm => self.norm.as_ref(),
            Module::FinalNorm => Some(&self.last),
            module => self.layer(site)?.parts.norm(module),
        }
    }
}
