//! Tables of rotary position embeddings (Su et al. 2021).

use crate::Tensor;
use crate::backend::Backend;
pub use crate::backend::RotaryTable;
use crate::error::Result;

impl RotaryTable {
    /// Computes the table. Pair `i` of a head rotates by `position · inverse_frequencies[i]`, rounded to `f32` where PyTorch
    /// rounds; cosines and sines are multiplied by `scale`.
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

/// Inverse frequency of each pair of a head: `1 / theta^(2i / head_dim)`.
pub fn inverse_frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|pair| 1.0 / theta.powf(2.0 * pair as f64 / head_dim as f64)).collect()
}
