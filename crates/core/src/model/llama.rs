//! The Llama family (Touvron et al. 2023), by its config: Llama 2 and 3, SmolLM, Mistral, Qwen 2 and 3. Pre-norm decoders
//! with rotary positions, gated networks, and heads of queries that may share keys and values.

mod config;
mod layer;
mod rope;

use super::adapted::{self, Norm};
use super::architecture::{self, Architecture, Facts, Loaded};
use super::loader::{self, Bias, Loader};
use super::weights::Weights;
use super::{Batch, Hooks, Module, Site, SiteInfo, Wanted, embeddings, pooler};
use crate::error::Result;
use config::{Config, Written};
use espalier_tensor::kernels::{FrozenLinear, FrozenTable};
use espalier_tensor::{Buffer, Kernels, Rows, Tape, Tensor, past};
use layer::{Layer, Reaches};
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

pub struct Llama {
    config: Config,
    word: FrozenTable,
    layers: Vec<Layer>,
    /// After the last.
    last: Norm,
}

/// Our name for a checkpoint's tensor: without the `model.` prefix, `None` for heads.
pub fn canonical(name: &str) -> Option<String> {
    loader::behind(name, "model.", &["embed_tokens.", "layers.", "norm."])
}

pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let config = architecture::read::<Written>(config)?.resolve()?;
    let reaches = Reaches::new(kernels, &config)?;
    let mut loader = Loader::root_mean_square(weights, kernels, config.rms_norm_eps);
    let word = loader.table("embed_tokens", config.vocab_size, config.hidden_size)?;
    let layers = (0..config.layers.len()).map(|index| Layer::load(&mut loader, index, &config, &reaches));
    let layers = layers.collect::<Result<_>>()?;
    let last = loader.norm_with("norm", config.hidden_size, Bias::Nothing)?;
    Loaded::new(Llama { config: config.clone(), word, layers, last }, &config)
}

impl Llama {
    fn last_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for Llama {
    fn facts(&self) -> Facts {
        Facts {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.max_tokens(),
        }
    }

    fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        embeddings::prompted(tape, &self.word, batch, hooks)
    }

    fn words(&self, kernels: &dyn Kernels, ids: &[u32]) -> Result<Buffer> {
        Ok(kernels.embed(&[(&self.word, ids)], None)?)
    }

    fn tied(&self, kernels: &dyn Kernels, bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        Ok(kernels.tie(&self.word, bias)?)
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

    fn is_causal(&self) -> bool {
        true
    }

    fn past(&self) -> Option<past::Form> {
        let config = &self.config;
        Some(past::Form { layers: self.layers.len(), heads: config.key_heads, width: config.head_width })
    }

    fn has_pooler(&self) -> bool {
        false
    }

    fn pooler(&self, tape: &mut Tape, hidden: Rows, hooks: &dyn Hooks) -> Result<Rows> {
        pooler::pool(None, tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.parts.sites()).collect();
        sites.push(self.last.site(self.last_site(), "model.norm"));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let layers = self.layers.iter().flat_map(Layer::buffers);
        self.word.buffers().chain(self.last.whole.buffers()).chain(layers).collect()
    }

    fn map(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        self.layer(site)?.parts.map(site.module)
    }

    fn norm(&self, site: Site) -> Option<&Norm> {
        match site.module {
            Module::FinalNorm => Some(&self.last),
            module => self.layer(site)?.parts.norm(module),
        }
    }
}
