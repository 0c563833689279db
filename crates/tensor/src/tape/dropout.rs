//! Which elements dropout takes away.

use super::node::Node;
use super::{Recording, Rows, Tape};
use crate::error::Result;
use crate::random::mix;
use crate::{Packed, Tensor};

/// A dropout mask is a function of seed, step, example, place, row and column, never of the cut into micro-batches.
#[derive(Debug, Clone)]
pub struct Dropout {
    pub seed: u64,
    pub step: u64,
    /// The example of each sequence, counted over the dataset.
    pub examples: Vec<u64>,
}

impl Dropout {
    /// `(rows, width)` of 0 or `1/(1 − rate)`.
    pub fn mask(&self, layout: &Packed, width: usize, rate: f64, place: u64) -> Tensor {
        let keep = (1.0 / (1.0 - rate)) as f32;
        let threshold = (rate * (1u64 << 32) as f64) as u64;
        let mut values = Vec::with_capacity(layout.rows() * width);
        for (sequence, example) in self.examples.iter().enumerate() {
            let key = mix(mix(mix(self.seed) ^ self.step) ^ mix(place) ^ example.rotate_left(17));
            for element in 0..(layout.length(sequence) * width) as u64 {
                let dropped = mix(key ^ element) >> 32 < threshold;
                values.push(if dropped { 0.0 } else { keep });
            }
        }
        Tensor::new([layout.rows(), width], values)
    }
}

impl Tape {
    /// Inverted dropout (Srivastava et al. 2014); `place` tells the sites apart. Nothing while serving.
    pub fn dropout(&mut self, input: Rows, rate: f64, place: u64) -> Result<Rows> {
        let Recording::On(dropout) = &self.recording else { return Ok(input) };
        if rate == 0.0 {
            return Ok(input);
        }
        let x = self.buffer(input)?;
        let mask = dropout.mask(&self.layout(input), x.width(), rate, place);
        let mask = self.kernels.upload(&mask)?;
        let rows = self.kernels.multiply(&x, &mask)?;
        Ok(self.derive(rows, &[input], |output| Node::Times { input, output, factor: mask }))
    }
}
