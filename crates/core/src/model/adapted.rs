//! A frozen operation, and what an adapter makes of it: what every architecture is put together from.

use super::hooks::{Hooks, Part, Prefix, Site, SiteInfo, Sublayer};
use crate::error::Result;
use espalier_tensor::kernels::{FrozenLinear, FrozenNorm};
use espalier_tensor::{Rows, Tape};
use std::sync::Arc;

/// x·Wᵀ + b
pub fn linear(tape: &mut Tape, hooks: &dyn Hooks, site: Site, map: &Arc<FrozenLinear>, input: Rows) -> Result<Rows> {
    let input = match hooks.touches_input(site) {
        true => {
            let copy = tape.copy(input)?;
            hooks.before(tape, site, copy)?
        }
        false => input,
    };
    let output = tape.linear(input, map)?;
    match hooks.touches(site) {
        true => hooks.after(tape, site, input, output),
        false => Ok(output),
    }
}

/// A frozen norm, and the same without gain and shift, which only adapters ask for.
pub struct Norm {
    pub whole: Arc<FrozenNorm>,
    pub bare: Arc<FrozenNorm>,
    /// Whether the checkpoint has a shift; else it is zero.
    pub has_shift: bool,
    /// Numbers in a row.
    pub width: usize,
}

impl Norm {
    pub fn site(&self, site: Site, path: &str) -> SiteInfo {
        SiteInfo { site, input: self.width, output: self.width, bias: self.has_shift, path: path.to_string() }
    }
}

/// A linear map's.
pub fn site(map: &FrozenLinear, site: Site, path: String) -> SiteInfo {
    SiteInfo { site, input: map.input, output: map.output, bias: map.bias().is_some(), path }
}

/// The norm of the input, or of its sum with a residual.
pub fn norm(
    tape: &mut Tape,
    hooks: &dyn Hooks,
    site: Site,
    norm: &Norm,
    input: Rows,
    residual: Option<Rows>,
) -> Result<Rows> {
    let output = tape.norm(input, residual, &norm.whole)?;
    match hooks.touches(site) {
        true => {
            let normalised = tape.norm(input, residual, &norm.bare)?;
            hooks.norm(tape, site, normalised, output)
        }
        false => Ok(output),
    }
}

/// A sublayer's output before its residual.
pub fn sublayer(tape: &mut Tape, hooks: &dyn Hooks, at: &Sublayer, output: Rows) -> Result<Rows> {
    match hooks.touches_sublayer(at.layer, at.part) {
        true => hooks.sublayer(tape, at, output),
        false => Ok(output),
    }
}

/// A sublayer's output, which is used up, added to its residual, where no norm follows.
pub fn added(
    tape: &mut Tape,
    hooks: &dyn Hooks,
    (layer, part): (usize, Part),
    residual: Rows,
    output: Rows,
) -> Result<Rows> {
    let output = sublayer(tape, hooks, &Sublayer { layer, part, residual, norm: None }, output)?;
    Ok(tape.add_rows(output, residual, 1.0)?)
}

/// Keys and values that adapters put in front of a layer's.
pub struct Fronts(Vec<Prefix>);

/// Those in front of a layer's keys.
pub fn fronts(tape: &mut Tape, hooks: &dyn Hooks, layer: usize, key: Rows) -> Result<Fronts> {
    let sequences = 0..tape.layout(key).sequences();
    hooks.prefix(tape, layer, sequences).map(Fronts)
}

impl Fronts {
    /// How many stand in front of each sequence.
    pub fn counts(&self, tape: &Tape, sequences: usize) -> Vec<usize> {
        let mut counts = vec![0; sequences];
        for Prefix { key, .. } in &self.0 {
            counts[key.sequences.clone()].fill(tape.layout(key.rows).rows());
        }
        counts
    }

    /// Keys and values behind them.
    pub fn before(self, tape: &mut Tape, [key, value]: [Rows; 2]) -> Result<[Rows; 2]> {
        if self.0.is_empty() {
            return Ok([key, value]);
        }
        let (keys, values): (Vec<_>, Vec<_>) = self.0.into_iter().map(|Prefix { key, value }| (key, value)).unzip();
        Ok([tape.prepend(key, &keys)?, tape.prepend(value, &values)?])
    }
}
