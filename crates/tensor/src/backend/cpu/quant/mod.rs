//! Products with quantized frozen weights.
//!
//! A weight has one value, the same in forward products, gradients and lookups. It is dequantized on the fly, in
//! registers for few rows ([`gemv`]) and to a first-level cache for many ([`dequant_gemm`]), and multiplied as `f32`.
//! So every element is one chain of multiply-adds in the order of k, as in GEMM, and a row has the same bits alone, in
//! a batch, and for every split of the columns over threads. That also holds for int8 activations ([`int8_gemm`]),
//! whose blocks are summed as integers.

mod activations;
mod codec;
mod column_slice;
mod dequant_gemm;
mod gemv;
mod int8_copy;
mod int8_gemm;
mod int8_tile;
mod integer_dot;
mod weight;

#[cfg(test)]
mod tests;

pub use activations::QuantizedActivations;
pub use column_slice::ColumnSlice;
pub use weight::QuantizedWeight;

use super::gemm::AccumulatorInit;
use super::simd::{Isa, LANES};
use crate::quant::{QuantFormat, STRIP_COLUMNS};
use codec::{Bf16, F16, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_1, Q5K, Q6K, Q7Group64, Q8_0};
use std::marker::PhantomData;

/// Up to this many rows, dequantizing in registers for every tile costs less than going through a buffer. Both give the
/// same bits.
const MAX_GEMV_ROWS: usize = 36;

const CACHE_LINE_BYTES: usize = 64;

/// Expands the body with `$type` bound to the format's codec.
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
            QuantFormat::Q5_1 => {
                type $type = Q5_1;
                $body
            }
            QuantFormat::Q2K => {
                type $type = Q2K;
                $body
            }
            QuantFormat::Q3K => {
                type $type = Q3K;
                $body
            }
            QuantFormat::Q4K => {
                type $type = Q4K;
                $body
            }
            QuantFormat::Q5K => {
                type $type = Q5K;
                $body
            }
            QuantFormat::Q6K => {
                type $type = Q6K;
                $body
            }
            QuantFormat::Q7Group64 => {
                type $type = Q7Group64;
                $body
            }
        }
    };
}

impl QuantizedWeight {
    /// `out = init + x·Wᵀ` for the output's columns, which start at a strip. `x` is `(rows, input)`; a bias has one
    /// value per column.
    pub fn multiply(&self, isa: Isa, x: &[f32], init: AccumulatorInit, output: &mut ColumnSlice) {
        if output.rows() <= MAX_GEMV_ROWS {
            dispatch_format!(self.format(), F, {
                isa.run(gemv::QuantGemv::<F> { weights: self, lhs: x, init, output, codec: PhantomData });
            });
        } else {
            dispatch_format!(self.format(), F, dequant_gemm::multiply::<F>(isa, self, x, init, output));
        }
    }

    /// `out = init + x·Wᵀ` with int8 activations.
    ///
    /// # Panics
    /// If the format has no integer kernel: [`QuantFormat::supports_integer_dot`].
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
            QuantFormat::Q5_1 => run_int8_gemm!(Q5_1),
            QuantFormat::Q2K => run_int8_gemm!(Q2K),
            QuantFormat::Q3K => run_int8_gemm!(Q3K),
            QuantFormat::Q4K => run_int8_gemm!(Q4K),
            QuantFormat::Q5K => run_int8_gemm!(Q5K),
            QuantFormat::Q6K => run_int8_gemm!(Q6K),
            QuantFormat::Q7Group64 => run_int8_gemm!(Q7Group64),
            QuantFormat::F16 | QuantFormat::Bf16 => unreachable!("the format has no integer kernel"),
        }
    }

    /// Dequantizes blocks of a strip to `(k, 32 columns)`. `out` holds a whole number of blocks.
    fn dequantize_strip_blocks(&self, isa: Isa, strip: usize, first_block: usize, out: &mut [f32]) {
        dispatch_format!(
            self.format(),
            F,
            dequant_gemm::dequantize_strip_blocks::<F>(isa, self, strip, first_block, out)
        );
    }

    /// `out = init + dY·W` with `gradient` `(rows, output)` and `out` `(rows, input)`. A bias is not allowed.
    pub fn backward_input(&self, isa: Isa, gradient: &[f32], init: AccumulatorInit, out: &mut [f32]) {
        dispatch_format!(self.format(), F, dequant_gemm::backward::<F>(isa, self, gradient, init, out));
    }
}

const _: () = assert!(STRIP_COLUMNS == 2 * LANES, "a strip is two panels");
