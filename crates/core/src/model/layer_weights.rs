//! Frozen linear maps and norms of one layer, by canonical module name.

use super::hooks::{self, HookedNorm, Hooks};
use super::loader::{BiasPresence, CheckpointLoader};
use super::site::{Module, Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{Buffer, Tape, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Frozen linear maps and norms of one layer, by module.
pub struct LayerWeights {
    layer: usize,
    /// Path of the layer in the model with a head.
    module_path: String,
    linears: BTreeMap<Module, (Arc<FrozenLinear>, &'static str)>,
    norms: BTreeMap<Module, (HookedNorm, &'static str)>,
}

/// Names of a layer in the checkpoint of an architecture.
#[derive(Clone, Copy)]
pub struct LayerPrefix {
    /// Name of the base model in the model with a head, for example `bert`.
    pub base_model: &'static str,
    /// Name of the list of layers, for example `encoder.layer`.
    pub layers: &'static str,
}

impl LayerPrefix {
    /// Name of a tensor of layer `index` in the checkpoint of the base model.
    pub fn tensor_name(self, index: usize, name: &str) -> String {
        format!("{}.{index}.{name}", self.layers)
    }
}

/// A linear map or norm to load, with its name below the layer.
pub enum LayerPart {
    Linear(Module, &'static str, [usize; 2], BiasPresence),
    Norm(Module, &'static str, usize, BiasPresence),
}

impl LayerPart {
    /// A linear map `[in_features, out_features]` with a bias.
    pub fn linear(module: Module, name: &'static str, features: [usize; 2]) -> Self {
        Self::Linear(module, name, features, BiasPresence::Present)
    }

    /// A norm with a bias.
    pub fn norm(module: Module, name: &'static str, width: usize) -> Self {
        Self::Norm(module, name, width, BiasPresence::Present)
    }
}

impl LayerWeights {
    /// Loads `parts` in this order.
    pub fn load(loader: &mut CheckpointLoader, prefix: LayerPrefix, layer: usize, parts: &[LayerPart]) -> Result<Self> {
        let module_path = format!("{}.{}.{layer}", prefix.base_model, prefix.layers);
        let mut weights = Self { layer, module_path, linears: BTreeMap::new(), norms: BTreeMap::new() };
        for part in parts {
            match *part {
                LayerPart::Linear(module, name, features, bias) => {
                    let linear = loader.linear(&prefix.tensor_name(layer, name), features, bias)?;
                    weights.linears.insert(module, (linear, name));
                }
                LayerPart::Norm(module, name, width, bias) => {
                    let norm = loader.norm(&prefix.tensor_name(layer, name), width, bias)?;
                    weights.norms.insert(module, (norm, name));
                }
            }
        }
        Ok(weights)
    }

    pub fn layer_index(&self) -> usize {
        self.layer
    }

    fn site(&self, module: Module) -> Site {
        Site { layer: Some(self.layer), module }
    }

    /// Applies a linear map of the layer, with its hooks.
    pub fn forward_linear(&self, tape: &mut Tape, hooks: &dyn Hooks, module: Module, input: Var) -> Result<Var> {
        hooks::linear(tape, hooks, self.site(module), &self.linears[&module].0, input)
    }

    /// Applies a norm of the layer, with its hook, to `input` or to its sum with `residual`.
    pub fn forward_norm(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        module: Module,
        input: Var,
        residual: Option<Var>,
    ) -> Result<Var> {
        self.norms[&module].0.forward(tape, hooks, self.site(module), input, residual)
    }

    pub fn linear_at(&self, module: Module) -> Option<&Arc<FrozenLinear>> {
        self.linears.get(&module).map(|(linear, _)| linear)
    }

    pub fn norm_at(&self, module: Module) -> Option<&HookedNorm> {
        self.norms.get(&module).map(|(norm, _)| norm)
    }

    /// Sites of the linear maps, then of the norms, each in the order of [`Module`].
    pub fn sites(&self) -> impl Iterator<Item = SiteInfo> {
        let path = |name: &str| format!("{}.{name}", self.module_path);
        let linears = self
            .linears
            .iter()
            .map(move |(module, (linear, name))| hooks::linear_site_info(linear, self.site(*module), path(name)));
        let norms = self.norms.iter().map(move |(module, (norm, name))| norm.site_info(self.site(*module), path(name)));
        linears.chain(norms)
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let norms = self.norms.values().flat_map(|(norm, _)| norm.weighted.buffers());
        self.linears.values().flat_map(|(linear, _)| linear.buffers()).chain(norms)
    }
}
