//! A frozen operation, and what an adapter makes of it: what every architecture is put together from.

use super::hooks::{Hooks, PrefixKeyValues, Site, SiteInfo, Sublayer, SublayerContext};
use crate::error::Result;
use espalier_tensor::backend::{FrozenLinear, FrozenNorm};
use espalier_tensor::{Tape, Var};
use std::sync::Arc;

/// x·Wᵀ + b
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

/// A frozen norm, and the same without gain and shift, which only adapters ask for.
pub struct HookedNorm {
    pub weighted: Arc<FrozenNorm>,
    pub unweighted: Arc<FrozenNorm>,
    /// Whether the checkpoint has a shift; else it is zero.
    pub has_bias: bool,
    /// Numbers in a row.
    pub width: usize,
}

impl HookedNorm {
    pub fn site_info(&self, site: Site, path: &str) -> SiteInfo {
        SiteInfo {
            site,
            in_features: self.width,
            out_features: self.width,
            has_bias: self.has_bias,
            module_path: path.to_string(),
        }
    }
}

/// A linear map's.
pub fn linear_site_info(linear: &FrozenLinear, site: Site, path: String) -> SiteInfo {
    SiteInfo {
        site,
        in_features: linear.in_features,
        out_features: linear.out_features,
        has_bias: linear.bias().is_some(),
        module_path: path,
    }
}

/// The norm of the input, or of its sum with a residual.
pub fn norm(
    tape: &mut Tape,
    hooks: &dyn Hooks,
    site: Site,
    norm: &HookedNorm,
    input: Var,
    residual: Option<Var>,
) -> Result<Var> {
    let output = tape.norm(input, residual, &norm.weighted)?;
    match hooks.has_output_hook(site) {
        true => {
            let normalised = tape.norm(input, residual, &norm.unweighted)?;
            hooks.on_norm_output(tape, site, normalised, output)
        }
        false => Ok(output),
    }
}

/// A sublayer's output before its residual.
pub fn sublayer(tape: &mut Tape, hooks: &dyn Hooks, context: &SublayerContext, output: Var) -> Result<Var> {
    match hooks.has_sublayer_hook(context.layer, context.sublayer) {
        true => hooks.on_sublayer_output(tape, context, output),
        false => Ok(output),
    }
}

/// A sublayer's output, which is used up, added to its residual, where no norm follows.
pub fn add_residual(
    tape: &mut Tape,
    hooks: &dyn Hooks,
    (layer, part): (usize, Sublayer),
    residual: Var,
    output: Var,
) -> Result<Var> {
    let output = sublayer(tape, hooks, &SublayerContext { layer, sublayer: part, residual, norm: None }, output)?;
    Ok(tape.add_rows_scaled(output, residual, 1.0)?)
}

/// Keys and values that adapters put in front of a layer's.
pub struct KvPrefixes(Vec<PrefixKeyValues>);

/// Those in front of a layer's keys.
pub fn kv_prefixes(tape: &mut Tape, hooks: &dyn Hooks, layer: usize, key: Var) -> Result<KvPrefixes> {
    let sequences = 0..tape.layout(key).num_sequences();
    hooks.prefix_key_values(tape, layer, sequences).map(KvPrefixes)
}

impl KvPrefixes {
    /// How many stand in front of each sequence.
    pub fn lengths(&self, tape: &Tape, sequences: usize) -> Vec<usize> {
        let mut lengths = vec![0; sequences];
        for PrefixKeyValues { key, .. } in &self.0 {
            lengths[key.sequences.clone()].fill(tape.layout(key.rows).num_rows());
        }
        lengths
    }

    /// Keys and values behind them.
    pub fn prepend_to(self, tape: &mut Tape, [key, value]: [Var; 2]) -> Result<[Var; 2]> {
        if self.0.is_empty() {
            return Ok([key, value]);
        }
        let (keys, values): (Vec<_>, Vec<_>) =
            self.0.into_iter().map(|PrefixKeyValues { key, value }| (key, value)).unzip();
        Ok([tape.prepend_rows(key, &keys)?, tape.prepend_rows(value, &values)?])
    }
}
