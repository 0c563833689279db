//! Encoders whose layers norm the sum of a sublayer and its residual: BERT and its descendants. They differ in their
//! config, their names and their embeddings alone.

mod layer;

pub use layer::{Layer, LayerConfig, LayerTensorNames};

use crate::error::Result;
use crate::model::architecture::{Architecture, ModelDimensions};
use crate::model::embeddings::Embeddings;
use crate::model::hooked_ops::HookedNorm;
use crate::model::{Batch, Hooks, Module, RequiredRows, Site, SiteInfo, pooler};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{Backend, Buffer, Tape, Var};
use std::ops::Range;
use std::sync::Arc;

pub struct PostNormEncoder {
    pub dimensions: ModelDimensions,
    /// What the headed model calls it: the first segment of every path.
    pub base_model_prefix: &'static str,
    pub embeddings: Embeddings,
    pub layers: Vec<Layer>,
    pub pooler: Option<Arc<FrozenLinear>>,
}

impl PostNormEncoder {
    fn layer(&self, site: Site) -> Option<&Layer> {
        site.layer.and_then(|index| self.layers.get(index))
    }
}

impl Architecture for PostNormEncoder {
    fn dimensions(&self) -> ModelDimensions {
        self.dimensions
    }

    fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        self.embeddings.forward(tape, batch, hooks)
    }

    fn embedding_rows(&self, backend: &dyn Backend, ids: &[u32]) -> Result<Buffer> {
        self.embeddings.embedding_rows(backend, ids)
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
        sites.push(self.embeddings.norm_site_info(format!("{}.embeddings.LayerNorm", self.base_model_prefix)));
        sites.extend(self.pooler.iter().map(|map| pooler::site_info(map, self.base_model_prefix)));
        sites
    }

    fn buffers(&self) -> Vec<&Buffer> {
        let layers = self.layers.iter().flat_map(|layer| layer.weights.buffers());
        let pooler = self.pooler.iter().flat_map(|map| map.buffers());
        let bias = self.layers.first().and_then(Layer::relative_position_bias);
        self.embeddings.buffers().chain(layers).chain(pooler).chain(bias).collect()
    }

    fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        match site.module {
            Module::Pooler => self.pooler.as_ref(),
            module => self.layer(site)?.weights.linear_at(module),
        }
    }

    fn norm_at(&self, site: Site) -> Option<&HookedNorm> {
        match site.module {
            Module::EmbeddingNorm => Some(&self.embeddings.norm),
            module => self.layer(site)?.weights.norm_at(module),
        }
    }
}
