//! Rotary positions (Su et al. 2021): pairs of a head's numbers are turned by an angle that grows with the position, so
//! that the product of a query and a key knows of their distance alone.
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::backend::{Backend, Buffer};
use super::tensor::Tensor;
use crate::error::Result;

/// The angles of every position, as their cosines and sines.
#[derive(Debug)]
pub struct RotaryTable {
    /// Each `(positions, head width / 2)`
    pub(super) cosines: Buffer,
    pub(super) sines: Buffer,
}

/// Which way the numbers are turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    /// As a backward pass does.
    Inverse,
}

impl RotaryTable {
    /// The pair `i` of a head turns by `position · frequencies[i]`, rounded to `f32` where PyTorch rounds; `scale` is what
    /// cosines and sines are multiplied by.
    pub fn new(backend: &dyn Backend, max_positions: usize, inverse_frequencies: &[f64], scale: f64) -> Result<Self> {
        let half_head_dim = inverse_frequencies.len();
        let table = |function: fn(f64) -> f64| {
            let angle = |position: usize, frequency: f64| f64::from(position as f32 * frequency as f32);
            let row = |position: usize| inverse_frequencies.iter().map(move |frequency| angle(position, *frequency));
            let values = (0..max_positions).flat_map(row).map(|angle| (function(angle) * scale) as f32).collect();
            backend.upload(&Tensor::new([max_positions, half_head_dim], values))
        };
        Ok(Self { cosines: table(f64::cos)?, sines: table(f64::sin)? })
    }
}

/// Of the pairs of a head: `1 / theta^(2i / head width)`.
pub fn inverse_frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|pair| 1.0 / theta.powf(2.0 * pair as f64 / head_dim as f64)).collect()
}

pub trait RotaryOps {
    /// The first half x and the second half y of every head become x·cos − y·sin and y·cos + x·sin. `positions` are the
    /// rows'.
    fn apply_rotary(
        &self,
        rows: Buffer,
        heads: usize,
        rotary: &RotaryTable,
        positions: &[u32],
        direction: Direction,
    ) -> Result<Buffer>;
}
