//! A frozen operation, and what an adapter makes of it: what every architecture is put together from.

use super::hooks::{Hooks, Prefix, Site, Sublayer};
use crate::compute::kernels::{FrozenLinear, FrozenNorm};
use crate::compute::{Rows, Tape};
use crate::error::Result;
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

/// Keys and values behind those that an adapter puts in front.
pub fn prefixed(tape: &mut Tape, hooks: &dyn Hooks, layer: usize, [key, value]: [Rows; 2]) -> Result<[Rows; 2]> {
    let sequences = 0..tape.layout(key).sequences();
    let prefixes = hooks.prefix(tape, layer, sequences)?;
    if prefixes.is_empty() {
        return Ok([key, value]);
    }
    let (keys, values): (Vec<_>, Vec<_>) = prefixes.into_iter().map(|Prefix { key, value }| (key, value)).unzip();
    Ok([tape.prepend(key, &keys)?, tape.prepend(value, &values)?])
}
