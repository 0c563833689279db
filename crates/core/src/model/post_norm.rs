//! Encoders whose layers norm the sum of a sublayer and its residual: BERT and its descendants. They differ in their
//! config, their names and their embeddings alone.

mod layer;

pub use layer::{Layer, Names, Shape};

use super::adapted::Norm;
use super::architecture::{Architecture, Facts};
use super::embeddings::Embeddings;
use super::{Batch, Hooks, Module, Site, SiteInfo, Wanted, pooler};
use crate::error::Result;
use espalier_tensor::kernels::FrozenLinear;
use espalier_tensor::{Buffer, Kernels, Rows, Tape};
use std::ops::Range;
use std::sync::Arc;

pub struct Encoder {
    pub facts: Facts,
    /// What the headed model calls it: the first segment of every path.
    pub head: &'static str,
    pub embeddings: Embeddings,
    pub layers: Vec<Layer>,
    pub pooler: Option<Arc<FrozenLinear>>,
}

impl Encoder {
    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for Encoder {
    fn facts(&self) -> Facts {
        self.facts
    }

    fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        self.embeddings.embed(tape, batch, hooks)
    }

    fn words(&self, kernels: &dyn Kernels, ids: &[u32]) -> Result<Buffer> {
        self.embeddings.words(kernels, ids)
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
        sites.push(self.embeddings.site(format!("{}.embeddings.LayerNorm", self.head)));
        sites.extend(self.pooler.iter().map(|map| pooler::site(map, self.head)));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let layers = self.layers.iter().flat_map(|layer| layer.parts.buffers());
        let pooler = self.pooler.iter().flat_map(|map| map.buffers());
        let bias = self.layers.first().and_then(Layer::bias);
        self.embeddings.buffers().chain(layers).chain(pooler).chain(bias).collect()
    }

    fn map(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        match site.module {
            Module::Pooler => self.pooler.as_ref(),
            module => self.layer(site)?.parts.map(module),
        }
    }

    fn norm(&self, site: Site) -> Option<&Norm> {
        match site.module {
            Module::EmbeddingNorm => Some(&self.embeddings.norm),
            module => self.layer(site)?.parts.norm(module),
        }
    }
}
