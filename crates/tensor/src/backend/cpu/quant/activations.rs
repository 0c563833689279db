//! Activations quantized to int8 in blocks of 32 with one scale each (llama.cpp's Q8_1).

use crate::backend::cpu::simd::{Isa, LANES, Simd, SimdKernel};
use crate::quant::BLOCK_SIZE;

/// Quantized rows `(rows, k)`, k padded with zeros to whole blocks.
pub struct QuantizedActivations {
    codes: Vec<i8>,
    /// Scale of each block, and the sum of its dequantized values.
    scales_and_sums: Vec<[f32; 2]>,
    blocks_per_row: usize,
}

impl QuantizedActivations {
    /// Quantizes rows of `k` values: each block to multiples of its largest magnitude / 127.
    pub fn new(isa: Isa, rows: &[f32], k: usize) -> Self {
        let (row_count, blocks_per_row) = (rows.len() / k.max(1), k.div_ceil(BLOCK_SIZE));
        let mut quantized = Self {
            codes: vec![0; row_count * blocks_per_row * BLOCK_SIZE],
            scales_and_sums: vec![[0.0; 2]; row_count * blocks_per_row],
            blocks_per_row,
        };
        isa.run(QuantizeRows { rows, k, output: &mut quantized });
        quantized
    }

    pub fn rows(&self) -> usize {
        self.scales_and_sums.len() / self.blocks_per_row.max(1)
    }

    /// Blocks per row.
    pub fn blocks_per_row(&self) -> usize {
        self.blocks_per_row
    }

    /// Codes of a row; rows are [`QuantizedActivations::blocks_per_row`] · 32 bytes apart.
    pub fn codes_ptr(&self, row: usize) -> *const i8 {
        self.codes[row * self.blocks_per_row * BLOCK_SIZE..].as_ptr()
    }

    /// Scale and sum of each block of a row.
    pub fn scales_and_sums_ptr(&self, row: usize) -> *const [f32; 2] {
        self.scales_and_sums[row * self.blocks_per_row..].as_ptr()
    }
}

struct QuantizeRows<'a> {
    rows: &'a [f32],
    k: usize,
    output: &'a mut QuantizedActivations,
}

impl SimdKernel for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        let Self { rows, k, output } = self;
        let (row_count, blocks) = (output.rows(), output.blocks_per_row);
        assert!(row_count * k <= rows.len(), "the input holds every row");
        let mut block_index = 0;
        while block_index < row_count * blocks {
            let first_k = block_index % blocks * BLOCK_SIZE;
            let remaining = k - first_k;
            // SAFETY: the block's values lie within `rows` and its 32 codes within `codes`, as asserted; loads are
            // limited to `remaining` values. The CPU supports `L`.
            unsafe {
                let src = rows.as_ptr().add(block_index / blocks * k + first_k);
                let (low, high) =
                    (L::load_partial(src, remaining), load_second_half::<L>(src.wrapping_add(LANES), remaining));
                let zero = L::splat(0.0);
                let max_abs = low.max(zero.sub(low)).max(high.max(zero.sub(high))).reduce_max();
                // Blocks too small to have a finite inverse scale become 0.
                let inverse_scale = 127.0 / max_abs;
                let inverse_scale = L::splat(if inverse_scale.is_finite() { inverse_scale } else { 0.0 });
                let (low, high) = (low.mul(inverse_scale).round_ties_even(), high.mul(inverse_scale).round_ties_even());
                let dst = output.codes.as_mut_ptr().add(block_index * BLOCK_SIZE);
                low.store_i8(dst);
                high.store_i8(dst.add(LANES));
                let scale = max_abs / 127.0;
                *output.scales_and_sums.as_mut_ptr().add(block_index) = [scale, scale * low.add(high).reduce_sum()];
            }
            block_index += 1;
        }
    }
}

/// Loads the second half of a block that has `remaining` values.
///
/// # Safety
/// The CPU supports the instructions of `L`, and `src` is readable for `remaining` − 16 values.
#[inline(always)]
unsafe fn load_second_half<L: Simd>(src: *const f32, remaining: usize) -> L {
    // SAFETY: `src` is readable for `remaining` − 16 values, and is not read if there are none.
    unsafe { if remaining > LANES { L::load_partial(src, remaining - LANES) } else { L::splat(0.0) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quantized_block_by_block() {
        let rows: Vec<f32> = (0..2 * 40).map(|index| (index as f32 * 0.7).sin() * (1 + index / 40) as f32).collect();
        for isa in Isa::available() {
            let quantized = QuantizedActivations::new(isa, &rows, 40);
            assert_eq!((quantized.rows(), quantized.blocks_per_row()), (2, 2));
            for (block_index, [scale, sum]) in quantized.scales_and_sums.iter().enumerate() {
                let codes = &quantized.codes[block_index * BLOCK_SIZE..][..BLOCK_SIZE];
                let block_values = &rows[block_index / 2 * 40..][..40][block_index % 2 * BLOCK_SIZE..];
                let block_values = &block_values[..block_values.len().min(BLOCK_SIZE)];
                let is_close =
                    |(code, number): (&i8, &f32)| (f32::from(*code) * scale - number).abs() <= 0.5001 * scale;
                assert!(codes.iter().zip(block_values).all(is_close), "{isa:?}: {codes:?}");
                assert!(codes[block_values.len()..].iter().all(|code| *code == 0), "{codes:?}");
                assert_eq!(codes.iter().map(|code| code.unsigned_abs()).max(), Some(127));
                let total: i32 = codes.iter().map(|code| i32::from(*code)).sum();
                assert!((total as f32 * scale - sum).abs() < 1e-5);
            }
        }
        let mut rows = [0.0; 96];
        rows[40] = 1e-38;
        let quantized = QuantizedActivations::new(Isa::detect(), &rows, 96);
        assert!(quantized.codes.iter().all(|code| *code == 0));
        assert!(quantized.scales_and_sums.iter().all(|[scale, sum]| *scale < 1e-37 && *sum == 0.0));
    }
}
