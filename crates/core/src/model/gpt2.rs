//! GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions. Its checkpoints keep linear maps as (input, output).

mod config;
mod layer;

use super::adapted::{self, Norm};
use super::architecture::{self, Architecture, Facts, Loaded};
use super::loader::{self, Loader};
use super::weights::Weights;
use super::{Batch, Hooks, Module, Site, SiteInfo, Wanted, embeddings, pooler};
use crate::error::Result;
use config::{Config, Written};
use espalier_tensor::kernels::{FrozenLinear, FrozenTable};
use espalier_tensor::past::Past;
use espalier_tensor::{Buffer, Kernels, Packed, Rows, Tape, Tensor, past};
use layer::Layer;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

pub struct Gpt2 {
    config: Config,
    word: FrozenTable,
    position: FrozenTable,
    layers: Vec<Layer>,
    /// After the last.
    last: Norm,
}

/// Our name for a checkpoint's tensor: without the `transformer.` prefix, `None` for heads and for the masks of attention
/// that older checkpoints have.
pub fn canonical(name: &str) -> Option<String> {
    let ours = loader::behind(name, "transformer.", &["wte.", "wpe.", "h.", "ln_f."])?;
    (!ours.ends_with(".attn.bias") && !ours.ends_with(".attn.masked_bias")).then_some(ours)
}

pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let written = architecture::read::<Written>(config)?;
    let (order, config) = (written.order(), written.resolve()?);
    let mut loader = Loader::new(weights, kernels, config.layer_norm_epsilon).keeping(order);
    let word = loader.table("wte", config.vocab_size, config.hidden_size)?;
    let position = loader.table("wpe", config.positions, config.hidden_size)?;
    let layers = (0..config.layers).map(|index| Layer::load(&mut loader, index, &config));
    let layers = layers.collect::<Result<_>>()?;
    let last = loader.norm("ln_f", config.hidden_size)?;
    Loaded::new(Gpt2 { config: config.clone(), word, position, layers, last }, &config)
}

impl Gpt2 {
    fn last_site(&self) -> Site {
        Site { layer: Some(self.layers.len() - 1), module: Module::FinalNorm }
    }

    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for Gpt2 {
    fn facts(&self) -> Facts {
        Facts {
            hidden_size: self.config.hidden_size,
            layers: self.layers.len(),
            attention_heads: self.config.heads,
            vocabulary_size: self.config.vocab_size,
            max_tokens: self.config.positions,
        }
    }

    fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        let rows = embeddings::prompted(tape, &self.word, batch, hooks)?;
        let positions = positions(batch, &tape.layout(rows), tape.pasts());
        Ok(tape.embed_onto(&[(&self.position, &positions)], rows)?)
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
        let width = self.config.hidden_size / self.config.heads;
        Some(past::Form { layers: self.layers.len(), heads: self.config.heads, width })
    }

    fn has_pooler(&self) -> bool {
        false
    }

    fn pooler(&self, tape: &mut Tape, hidden: Rows, hooks: &dyn Hooks) -> Result<Rows> {
        pooler::pool(None, tape, hidden, hooks)
    }

    fn sites(&self) -> Vec<SiteInfo> {
        let mut sites: Vec<SiteInfo> = self.layers.iter().flat_map(|layer| layer.parts.sites()).collect();
        sites.push(self.last.site(self.last_site(), "transformer.ln_f"));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let tables = [&self.word, &self.position].into_iter().flat_map(FrozenTable::buffers);
        let layers = self.layers.iter().flat_map(|layer| layer.parts.buffers());
        tables.chain(self.last.whole.buffers()).chain(layers).collect()
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

/// Of all rows, virtual tokens among them: a sequence that has begun goes on where its past ends.
fn positions(batch: &Batch, layout: &Packed, pasts: Option<&[Past]>) -> Vec<u32> {
    let Some(pasts) = pasts else { return batch.positions.clone() };
    let of = |(rows, past): (Range<usize>, &Past)| {
        let first = match past.is_fresh() {
            true => batch.positions[rows.start],
            false => past.position() as u32,
        };
        first..first + rows.len() as u32
    };
    layout.ranges().zip(pasts).flat_map(of).collect()
}
