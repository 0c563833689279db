//! ModernBERT (Warner et al. 2024): rotary positions, pre-norm layers, gated networks, and attention that is local in most
//! layers. It has neither positions nor types among its embeddings, and no pooler.

mod config;
mod layer;

use super::adapted::{self, Norm};
use super::architecture::{self, Architecture, Facts, Loaded};
use super::loader::{self, Bias, Loader};
use super::weights::Weights;
use super::{Batch, Hooks, Module, Site, SiteInfo, Wanted, embeddings, pooler};
use crate::error::Result;
use config::{Config, Written};
use espalier_tensor::kernels::{FrozenLinear, FrozenTable};
use espalier_tensor::{Buffer, Kernels, Rows, Tape};
use layer::{Layer, Reaches};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

pub struct ModernBert {
    config: Config,
    word: FrozenTable,
    norm: Norm,
    layers: Vec<Layer>,
    /// After the last.
    last: Norm,
}

/// Our name for a checkpoint's tensor: without the `model.` prefix, `None` for heads.
pub fn canonical(name: &str) -> Option<String> {
    loader::behind(name, "model.", &["embeddings.", "layers.", "final_norm."])
}

pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let config = architecture::read::<Written>(config)?.resolve()?;
    let reaches = Reaches::new(kernels, &config)?;
    let mut loader = Loader::new(weights, kernels, config.norm_eps);
    let word = loader.table("embeddings.tok_embeddings", config.vocab_size, config.hidden_size)?;
    let bias = Bias::of(config.norm_bias);
    let norm = loader.norm_with("embeddings.norm", config.hidden_size, bias)?;
    let layers = (0..config.layers.len()).map(|index| Layer::load(&mut loader, index, &config, &reaches));
    let layers = layers.collect::<Result<_>>()?;
    let last = loader.norm_with("final_norm", config.hidden_size, bias)?;
    Loaded::new(ModernBert { config: config.clone(), word, norm, layers, last }, &config)
}

const EMBEDDING_NORM: Site = Site { layer: None, module: Module::EmbeddingNorm };

impl ModernBert {
    fn last_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for ModernBert {
    fn facts(&self) -> Facts {
        Facts {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.max_position_embeddings,
        }
    }

    fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        let words = embeddings::prompted(tape, &self.word, batch, hooks)?;
        adapted::norm(tape, hooks, EMBEDDING_NORM, &self.norm, words, None)
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
        false
    }

    fn pooler(&self, tape: &mut Tape, hidden: Rows, hooks: &dyn Hooks) -> Result<Rows> {
        pooler::pool(None, tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.parts.sites()).collect();
        sites.push(self.last.site(self.last_site(), "model.final_norm"));
        sites.push(self.norm.site(EMBEDDING_NORM, "model.embeddings.norm"));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let norms = [&self.norm, &self.last].into_iter().flat_map(|norm| norm.whole.buffers());
        let layers = self.layers.iter().flat_map(|layer| layer.parts.buffers());
        self.word.buffers().chain(norms).chain(layers).collect()
    }

    fn map(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        self.layer(site)?.parts.map(site.module)
    }

    fn norm(&self, site: Site) -> Option<&Norm> {
        match site.module {
            Module::EmbeddingNorm => Some(&self.norm),
            Module::FinalNorm => Some(&self.last),
            module => self.layer(site)?.parts.norm(module),
        }
    }
}
