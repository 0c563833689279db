//! The frozen linear maps and norms of one layer, by our names for them: what layers are put together from.
//!
//! Knows the names of a checkpoint's tensors from whoever loads a layer, and not what the layer computes with them.

use super::adapted::{self, Norm};
use super::loader::{Bias, Loader};
use super::{Hooks, Module, Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::kernels::FrozenLinear;
use espalier_tensor::{Buffer, Rows, Tape};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Parts {
    layer: usize,
    /// What stands before a part's name: in the base's own checkpoint, and in the headed model.
    prefixes: [String; 2],
    maps: BTreeMap<Module, (Arc<FrozenLinear>, &'static str)>,
    norms: BTreeMap<Module, (Norm, &'static str)>,
}

impl Parts {
    /// `layers` is what stands before the numbers of all layers, and `head` before that in the headed model.
    pub fn new(layer: usize, layers: &str, head: &str) -> Self {
        let prefixes = [format!("{layers}.{layer}"), format!("{head}.{layers}.{layer}")];
        Self { layer, prefixes, maps: BTreeMap::new(), norms: BTreeMap::new() }
    }

    /// Takes a linear map's tensors from the checkpoint, which calls it by this name.
    pub fn load_map(
        &mut self,
        loader: &mut Loader,
        (module, name): (Module, &'static str),
        [input, output]: [usize; 2],
        bias: Bias,
    ) -> Result<()> {
        let map = loader.linear_with(&format!("{}.{name}", self.prefixes[0]), input, output, bias)?;
        self.maps.insert(module, (map, name));
        Ok(())
    }

    pub fn load_norm(
        &mut self,
        loader: &mut Loader,
        (module, name): (Module, &'static str),
        width: usize,
        bias: Bias,
    ) -> Result<()> {
        let norm = loader.norm_with(&format!("{}.{name}", self.prefixes[0]), width, bias)?;
        self.norms.insert(module, (norm, name));
        Ok(())
    }

    pub fn layer(&self) -> usize {
        self.layer
    }

    fn at(&self, module: Module) -> Site {
        Site { layer: Some(self.layer), module }
    }

    /// A map that was loaded, with what an adapter makes of it.
    pub fn linear(&self, tape: &mut Tape, hooks: &dyn Hooks, module: Module, input: Rows) -> Result<Rows> {
        adapted::linear(tape, hooks, self.at(module), &self.maps[&module].0, input)
    }

    /// A norm that was loaded, with what an adapter makes of it; of the sum with a residual, where there is one.
    pub fn normed(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        module: Module,
        input: Rows,
        residual: Option<Rows>,
    ) -> Result<Rows> {
        adapted::norm(tape, hooks, self.at(module), &self.norms[&module].0, input, residual)
    }

    pub fn map(&self, module: Module) -> Option<&Arc<FrozenLinear>> {
        self.maps.get(&module).map(|(map, _)| map)
    }

    pub fn norm(&self, module: Module) -> Option<&Norm> {
        self.norms.get(&module).map(|(norm, _)| norm)
    }

    /// Maps, then norms, in our order.
    pub fn sites(&self) -> impl Iterator<Item = SiteInfo> {
        let path = |name: &str| format!("{}.{name}", self.prefixes[1]);
        let maps = self.maps.iter().map(move |(module, (map, name))| adapted::site(map, self.at(*module), path(name)));
        let norms = self.norms.iter().map(move |(module, (norm, name))| norm.site(self.at(*module), &path(name)));
        maps.chain(norms)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let norms = self.norms.values().flat_map(|(norm, _)| norm.whole.buffers());
        self.maps.values().flat_map(|(map, _)| map.buffers()).chain(norms)
    }
}
