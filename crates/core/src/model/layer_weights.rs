//! The frozen linear maps and norms of one layer, by our names for them: what layers are put together from.
//!
//! Knows the names of a checkpoint's tensors from whoever loads a layer, and not what the layer computes with them.

use super::hooked_ops::{self, HookedNorm};
use super::loader::{BiasPresence, CheckpointLoader};
use super::{Hooks, Module, Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{Buffer, Tape, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct LayerWeights {
    layer: usize,
    /// What stands before a part's name: in the base's own checkpoint, and in the headed model.
    tensor_prefixes: [String; 2],
    linears: BTreeMap<Module, (Arc<FrozenLinear>, &'static str)>,
    norms: BTreeMap<Module, (HookedNorm, &'static str)>,
}

impl LayerWeights {
    /// `layers` is what stands before the numbers of all layers, and `head` before that in the headed model.
    pub fn new(layer: usize, layers_prefix: &str, base_model_prefix: &str) -> Self {
        let prefixes = [format!("{layers_prefix}.{layer}"), format!("{base_model_prefix}.{layers_prefix}.{layer}")];
        Self { layer, tensor_prefixes: prefixes, linears: BTreeMap::new(), norms: BTreeMap::new() }
    }

    /// Takes a linear map's tensors from the checkpoint, which calls it by this name.
    pub fn load_linear(
        &mut self,
        loader: &mut CheckpointLoader,
        (module, name): (Module, &'static str),
        [input, output]: [usize; 2],
        bias: BiasPresence,
    ) -> Result<()> {
        let map =
            loader.linear_with_optional_bias(&format!("{}.{name}", self.tensor_prefixes[0]), input, output, bias)?;
        self.linears.insert(module, (map, name));
        Ok(())
    }

    pub fn load_norm(
        &mut self,
        loader: &mut CheckpointLoader,
        (module, name): (Module, &'static str),
        width: usize,
        bias: BiasPresence,
    ) -> Result<()> {
        let norm = loader.norm_with_optional_bias(&format!("{}.{name}", self.tensor_prefixes[0]), width, bias)?;
        self.norms.insert(module, (norm, name));
        Ok(())
    }

    pub fn layer_index(&self) -> usize {
        self.layer
    }

    fn site(&self, module: Module) -> Site {
        Site { layer: Some(self.layer), module }
    }

    /// A map that was loaded, with what an adapter makes of it.
    pub fn forward_linear(&self, tape: &mut Tape, hooks: &dyn Hooks, module: Module, input: Var) -> Result<Var> {
        hooked_ops::linear(tape, hooks, self.site(module), &self.linears[&module].0, input)
    }

    /// A norm that was loaded, with what an adapter makes of it; of the sum with a residual, where there is one.
    pub fn forward_norm(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        module: Module,
        input: Var,
        residual: Option<Var>,
    ) -> Result<Var> {
        hooked_ops::norm(tape, hooks, self.site(module), &self.norms[&module].0, input, residual)
    }

    pub fn linear_at(&self, module: Module) -> Option<&Arc<FrozenLinear>> {
        self.linears.get(&module).map(|(map, _)| map)
    }

    pub fn norm_at(&self, module: Module) -> Option<&HookedNorm> {
        self.norms.get(&module).map(|(norm, _)| norm)
    }

    /// Maps, then norms, in our order.
    pub fn sites(&self) -> impl Iterator<Item = SiteInfo> {
        let path = |name: &str| format!("{}.{name}", self.tensor_prefixes[1]);
        let maps = self
            .linears
            .iter()
            .map(move |(module, (map, name))| hooked_ops::linear_site_info(map, self.site(*module), path(name)));
        let norms =
            self.norms.iter().map(move |(module, (norm, name))| norm.site_info(self.site(*module), &path(name)));
        maps.chain(norms)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let norms = self.norms.values().flat_map(|(norm, _)| norm.weighted.buffers());
        self.linears.values().flat_map(|(map, _)| map.buffers()).chain(norms)
    }
}
