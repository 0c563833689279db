//! Frozen weights in fewer bits than `f32`, and their products with rows of `f32`.
//!
//! A weight is one number, whatever reads it: a product's, a gradient's and a lookup's are the same to the last bit. It is
//! widened on the way, in registers for few rows and in a first-level cache for many, and multiplied as an `f32`. So every
//! element of a product is one chain of multiply-adds along the depth, as it is in [`super::product`], and a row has the
//! same bits alone, in a batch, and however columns are shared among threads. That holds for rows that are rounded to bytes, too
//! ([`bytes`]), whose blocks are summed as whole numbers.

mod activations;
mod codec;
mod column_slice;
mod dequant_gemm;
mod gemv;
mod int8_gemm;
mod weight;

#[cfg(test)]
mod tests;

pub use activations::QuantizedActivations;
pub use column_slice::ColumnSlice;
pub use weight::QuantizedWeight;

use super::gemm::AccumulatorInit;
use super::simd::{Isa, LANES};
use crate::quant::{QuantFormat, STRIP_COLUMNS};
use codec::{AffineQ4, AffineQ8, Bf16, F16, Q4_0, Q4_1, Q8_0};
use std::marker::PhantomData;

/// Up to so many rows, widening the weights for every tile of them costs less than a buffer does. Both have the same bits.
const MAX_GEMV_ROWS: usize = 36;

/// The body, with a form's type for its name.
macro_rules! dispatch_format {
    ($format:expr, $type:ident, $body:expr) => {
        match $format {
            QuantFormat::F16 => {
                type $type = F16;
                $body
            }
            QuantFormat::Bf16 => {
                type $type = Bf16;
                $body
            }
            QuantFormat::Q8_0 => {
                type $type = Q8_0;
                $body
            }
            QuantFormat::Q4_0 => {
                type $type = Q4_0;
                $body
            }
            QuantFormat::Q4_1 => {
                type $type = Q4_1;
                $body
            }
            QuantFormat::AffineQ4 => {
                type $type = AffineQ4;
                $body
            }
            QuantFormat::AffineQ8 => {
                type $type = AffineQ8;
                $body
            }
        }
    };
}

impl QuantizedWeight {
    /// `out = start + x·Wᵀ` for the output's columns, which begin at a multiple of 32 (between two strips). `x` is
    /// `(rows, input)`; a bias has a number for every column.
    pub fn multiply(&self, isa: Isa, x: &[f32], init: AccumulatorInit, output: &mut ColumnSlice) {
        if output.rows() <= MAX_GEMV_ROWS {
            dispatch_format!(self.format(), F, {
                isa.run(gemv::QuantGemv::<F> { weights: self, lhs: x, init, output, codec: PhantomData });
            });
        } else {
            dispatch_format!(self.format(), F, dequant_gemm::multiply::<F>(isa, self, x, init, output));
        }
    }

    /// The same of rows that are rounded to bytes.
    ///
    /// # Panics
    /// For the others: [`Form::is_whole`].
    pub fn multiply_int8(&self, isa: Isa, x: &QuantizedActivations, init: AccumulatorInit, output: &mut ColumnSlice) {
        macro_rules! run_int8_gemm {
            ($format:ty) => {
                isa.run_int8_dot(int8_gemm::Int8Gemm::<$format> {
                    weights: self,
                    activations: x,
                    init,
                    output,
                    codec: PhantomData,
                })
            };
        }
        match self.format() {
            QuantFormat::Q8_0 => run_int8_gemm!(Q8_0),
            QuantFormat::Q4_0 => run_int8_gemm!(Q4_0),
            QuantFormat::Q4_1 => run_int8_gemm!(Q4_1),
            QuantFormat::AffineQ4 => run_int8_gemm!(AffineQ4),
            QuantFormat::F16 | QuantFormat::Bf16 | QuantFormat::AffineQ8 => {
                unreachable!("these forms do not multiply as whole numbers")
            }
        }
    }

    /// `out = start + dY·W`: `gradient` is `(rows, output)`, `out` `(rows, input)`. There is no bias.
    pub fn backward_input(&self, isa: Isa, gradient: &[f32], init: AccumulatorInit, out: &mut [f32]) {
        dispatch_format!(self.format(), F, dequant_gemm::backward::<F>(isa, self, gradient, init, out));
    }
}

const _: () = assert!(STRIP_COLUMNS == 2 * LANES, "a strip is two panels");
