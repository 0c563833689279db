//! The gradient by a frozen map's input, dX = dY·W: no second copy of the weight, a few blocks of it are turned at a time.
//!
//! Every element is one chain along the outputs, in their order.

use super::codec::QuantCodec;
use super::dequant_gemm::{BLOCKS_PER_PASS, row_block_size};
use super::dequantize::{BlockLayout, DEQUANTIZED_BLOCK_LEN, DequantizeBlocks};
use super::format::{BLOCK_SIZE, STRIP_COLUMNS};
use super::quantized_weight::QuantizedWeight;
use crate::cpu::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use crate::cpu::matrix::MatrixBuf;
use crate::cpu::simd::Isa;
use std::marker::PhantomData;

/// `out[row, k] = start + Σ gradient[row, column] · weight[column, k]`, with `gradient` `(rows, output)` and `out`
/// `(rows, input)`.
pub fn backward<F: QuantCodec>(
    isa: Isa,
    weights: &QuantizedWeight,
    gradient: &[f32],
    init: AccumulatorInit,
    out: &mut [f32],
) {
    let (out_features, in_features) = (weights.out_features(), weights.in_features());
    assert!(!matches!(init, AccumulatorInit::Bias(_)), "a gradient has no bias");
    let row_count = out.len() / in_features.max(1);
    assert!(row_count * out_features <= gradient.len(), "the gradient has every row");
    // The sums stay in the second-level cache, beside as many of the gradients as meet a few blocks.
    let max_rows = row_block_size(in_features + BLOCKS_PER_PASS * STRIP_COLUMNS).min(row_count);
    let mut dequantized = MatrixBuf::new(BLOCKS_PER_PASS, DEQUANTIZED_BLOCK_LEN);
    for row in (0..row_count).step_by(max_rows.max(1)) {
        let rows = max_rows.min(row_count - row);
        let out = &mut out[row * in_features..(row + rows) * in_features];
        for first_output in (0..out_features).step_by(BLOCKS_PER_PASS * STRIP_COLUMNS) {
            let k = (BLOCKS_PER_PASS * STRIP_COLUMNS).min(out_features - first_output);
            let init = if first_output > 0 { AccumulatorInit::Output } else { init };
            for column in (0..in_features).step_by(BLOCK_SIZE) {
                let weight_offset = first_output / STRIP_COLUMNS * weights.strip_bytes()
                    + column / BLOCK_SIZE * F::FORMAT.strip_block_bytes();
                let dequantized_blocks =
                    &mut dequantized.as_mut_slice()[..k.div_ceil(STRIP_COLUMNS) * DEQUANTIZED_BLOCK_LEN];
                let (block_stride, prefetch_distance) = (weights.strip_bytes(), F::FORMAT.strip_block_bytes());
                let layout = BlockLayout::OutputByInput;
                isa.run(DequantizeBlocks::<F> {
                    weights,
                    first_offset: weight_offset,
                    block_stride,
                    prefetch_distance,
                    layout,
                    out: dequantized_blocks,
                    codec: PhantomData,
                });
                let lhs = Lhs::row_major(&gradient[row * out_features + first_output..], out_features);
                let rhs = Rhs { values: dequantized_blocks, panel_stride: BLOCK_SIZE / 2, k_stride: BLOCK_SIZE };
                let columns = BLOCK_SIZE.min(in_features - column);
                let out = &mut out[column..];
                isa.run(Gemm { m: rows, k, n: columns, lhs, rhs, init, out, out_stride: in_features });
            }
        }
    }
}
