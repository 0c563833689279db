//! Dropout.

use super::op::Op;
use super::{Recording, Tape, Var};
use crate::error::Result;
use crate::seeded_rng::mix64;
use crate::{RaggedLayout, Tensor};

/// Parameters of the dropout masks. A mask is a function of seed, step, example, site, row and column, never of the
/// split into micro-batches.
#[derive(Debug, Clone)]
pub struct Dropout {
    pub seed: u64,
    pub step: u64,
    /// Index of each sequence's example in the dataset.
    pub example_ids: Vec<u64>,
}

impl Dropout {
    /// Mask `(rows, width)` of 0 and `1/(1 − rate)`.
    pub fn mask(&self, layout: &RaggedLayout, width: usize, rate: f64, site_id: u64) -> Tensor {
        let keep_scale = (1.0 / (1.0 - rate)) as f32;
        let threshold = (rate * (1u64 << 32) as f64) as u64;
        let mut values = Vec::with_capacity(layout.num_rows() * width);
        for (sequence, example) in self.example_ids.iter().enumerate() {
            let key = mix64(mix64(mix64(self.seed) ^ self.step) ^ mix64(site_id) ^ example.rotate_left(17));
            for element in 0..(layout.length(sequence) * width) as u64 {
                let dropped = mix64(key ^ element) >> 32 < threshold;
                values.push(if dropped { 0.0 } else { keep_scale });
            }
        }
        Tensor::new([layout.num_rows(), width], values)
    }
}

impl Tape {
    /// Inverted dropout (Srivastava et al. 2014); every site has its own `site_id`. Does nothing while the tape does
    /// not record.
    pub fn dropout(&mut self, input: Var, rate: f64, site_id: u64) -> Result<Var> {
        let Recording::On(dropout) = &self.recording else { return Ok(input) };
        if rate == 0.0 {
            return Ok(input);
        }
        let x = self.buffer(input)?;
        let mask = dropout.mask(&self.layout(input), x.width(), rate, site_id);
        let mask = self.backend.upload(&mask)?;
        let rows = self.backend.mul(&x, &mask)?;
        Ok(self.push_op(rows, &[input], |output| Op::MulConstant { input, output, factor: mask }))
    }
}
