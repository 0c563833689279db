//! Frozen operations with their adapter hooks. Layers of all architectures are built from them.

use super::hooks::{Hooks, Sublayer, SublayerContext};
use super::site::{Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::backend::{FrozenLinear, FrozenNorm};
use espalier_tensor::{Tape, Var};
use std::sync::Arc;

/// Applies a frozen linear map, x·Wᵀ + b.
pub fn linear(tape: &mut Tape, hooks: &dyn Hooks, site: Site, linear: &Arc<FrozenLinear>, input: Var) -> Result<Var> {
    let input = match hooks.has_input_hook(site) {
        true => {
            let copy = tape.copy(input)?;
            hooks.on_linear_input(tape, site, copy)?
        }
        false => input,
    };
    let output = tape.linear(input, linear)?;
    match hooks.has_output_hook(site) {
        true => hooks.on_linear_output(tape, site, input, output),
        false => Ok(output),
    }
}

/// Describes the site of a linear map.
pub fn linear_site_info(linear: &FrozenLinear, site: Site, module_path: String) -> SiteInfo {
    SiteInfo {
        site,
        in_features: linear.in_features,
        out_features: linear.out_features,
        has_bias: linear.bias().is_some(),
        module_path,
    }
}

/// A frozen norm, and the same norm without weight and bias, which only adapters use.
pub struct HookedNorm {
    pub weighted: Arc<FrozenNorm>,
    pub unweighted: Arc<FrozenNorm>,
    /// Whether the checkpoint has a bias; the bias is zero otherwise.
    pub has_bias: bool,
    pub width: usize,
}

impl HookedNorm {
    pub fn site_info(&self, site: Site, module_path: String) -> SiteInfo {
        SiteInfo { site, in_features: self.width, out_features: self.width, has_bias: self.has_bias, module_path }
    }

    /// Norms `input`, or its sum with `residual`.
    pub fn forward(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        site: Site,
        input: Var,
        residual: Option<Var>,
    ) -> Result<Var> {
        let output = tape.norm(input, residual, &self.weighted)?;
        match hooks.has_output_hook(site) {
            true => {
                let normalised = tape.norm(input, residual, &self.unweighted)?;
                hooks.on_norm_output(tape, site, normalised, output)
            }
            false => Ok(output),
        }
    }
}

/// Applies the sublayer hook to the output of a sublayer, before its residual is added.
pub fn sublayer(tape: &mut Tape, hooks: &dyn Hooks, context: &SublayerContext, output: Var) -> Result<Var> {
    match hooks.has_sublayer_hook(context.layer, context.sublayer) {
        true => hooks.on_sublayer_output(tape, context, output),
        false => Ok(output),
    }
}

/// Applies the sublayer hook and adds the residual, in pre-norm layers. Overwrites `output`.
pub fn add_residual(
    tape: &mut Tape,
    hooks: &dyn Hooks,
    (layer, sublayer): (usize, Sublayer),
    residual: Var,
    output: Var,
) -> Result<Var> {
    let context = SublayerContext { layer, sublayer, residual, norm: None };
    let output = self::sublayer(tape, hooks, &context, output)?;
    Ok(tape.add_rows_scaled(output, residual, 1.0)?)
}
