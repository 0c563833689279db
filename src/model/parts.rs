//! The frozen linear maps and norms of one layer, by our names for them: what layers are put together from.
//!
//! Knows the names of a checkpoint's tensors from whoever loads a layer, and not what the layer computes with them.

use super::adapted::{self, Norm};
use super::loader::{Bias, Loader};
use super::{Hooks, Module, Site, SiteInfo};
use crate::compute::kernels::FrozenLinear;
use crate::compute::{Buffer, Rows, Tape};
use crate::error::Result;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Parts {
    layer: usize,
    /// What a checkpoint calls a part of a layer.
    name: fn(Module) -> &'static str,
    /// What stands before it: in the encoder's own checkpoint, and in the headed model.
    prefixes: [String; 2],
    maps: BTreeMap<Module, Arc<FrozenLinear>>,
    norms: BTreeMap<Module, Norm>,
}

impl Parts {
    /// `prefixes` are those of all layers: `layers`, and `model.layers` in the headed model.
    pub fn new(layer: usize, prefixes: [&str; 2], name: fn(Module) -> &'static str) -> Self {
        let prefixes = prefixes.map(|prefix| format!("{prefix}.{layer}"));
        Self { layer, name, prefixes, maps: BTreeMap::new(), norms: BTreeMap::new() }
    }

    /// Takes a linear map's tensors from the checkpoint.
    pub fn load_map(
        &mut self,
        loader: &mut Loader,
        module: Module,
        [input, output]: [usize; 2],
        bias: Bias,
    ) -> Result<()> {
        let name = format!("{}.{}", self.prefixes[0], (self.name)(module));
        self.maps.insert(module, loader.linear_with(&name, input, output, bias)?);
        Ok(())
    }

    pub fn load_norm(&mut self, loader: &mut Loader, module: Module, width: usize, bias: Bias) -> Result<()> {
        let name = format!("{}.{}", self.prefixes[0], (self.name)(module));
        self.norms.insert(module, loader.norm_with(&name, width, bias)?);
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
        adapted::linear(tape, hooks, self.at(module), &self.maps[&module], input)
    }

    /// A norm that was loaded, with what an adapter makes of it.
    pub fn normed(&self, tape: &mut Tape, hooks: &dyn Hooks, module: Module, input: Rows) -> Result<Rows> {
        adapted::norm(tape, hooks, self.at(module), &self.norms[&module], input, None)
    }

    pub fn map(&self, module: Module) -> Option<&Arc<FrozenLinear>> {
        self.maps.get(&module)
    }

    pub fn norm(&self, module: Module) -> Option<&Norm> {
        self.norms.get(&module)
    }

    /// Maps, then norms, in our order.
    pub fn sites(&self) -> impl Iterator<Item = SiteInfo> {
        let path = |module: Module| format!("{}.{}", self.prefixes[1], (self.name)(module));
        let maps = self.maps.iter().map(move |(module, map)| adapted::site(map, self.at(*module), path(*module)));
        let norms = self.norms.iter().map(move |(module, norm)| norm.site(self.at(*module), &path(*module)));
        maps.chain(norms)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let norms = self.norms.values().flat_map(|norm| norm.whole.buffers());
        self.maps.values().flat_map(|map| map.buffers()).chain(norms)
    }
}
