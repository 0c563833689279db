//! Activations quantized to integers in blocks of 32 with one scale each (as llama.cpp's Q8_1): of 8 bits for weights of 4
//! bits, of 7 for weights of 8.

use crate::backend::cpu::matrix::MatrixBuf;
use crate::backend::cpu::simd::{Isa, LANES, Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, QuantFormat};

/// Quantized rows `(rows, k)`, k padded with zeros to whole blocks.
pub struct QuantizedActivations {
    /// Codes of all rows, four to a value.
    codes: MatrixBuf,
    /// A [`LhsBlock`] for each block of all rows.
    blocks: MatrixBuf,
    rows: usize,
    blocks_per_row: usize,
}

/// What 32 codes share.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LhsBlock {
    pub scale: f32,
    /// The sum of the codes times −1.
    pub negated_code_sum: i32,
}

/// `f32` values that the codes and the [`LhsBlock`] of a block take.
const CODE_VALUES: usize = BLOCK_SIZE / size_of::<f32>();
const BLOCK_VALUES: usize = size_of::<LhsBlock>() / size_of::<f32>();

impl QuantizedActivations {
    /// Quantizes rows of `k` values for products with weights of this format: each block to multiples of its largest
    /// magnitude / [`QuantFormat::max_activation_code`].
    pub fn new(isa: Isa, rows: &[f32], k: usize, format: QuantFormat) -> Self {
        let (row_count, blocks_per_row) = (rows.len() / k.max(1), k.div_ceil(BLOCK_SIZE));
        let mut quantized = Self {
            codes: MatrixBuf::new(row_count, blocks_per_row * CODE_VALUES),
            blocks: MatrixBuf::new(row_count, blocks_per_row * BLOCK_VALUES),
            rows: row_count,
            blocks_per_row,
        };
        let max_code = f32::from(format.max_activation_code());
        isa.run(QuantizeRows { rows, k, max_code, output: &mut quantized });
        quantized
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Blocks per row.
    pub fn blocks_per_row(&self) -> usize {
        self.blocks_per_row
    }

    /// Codes of a row; rows are [`QuantizedActivations::blocks_per_row`] · 32 bytes apart.
    pub fn codes_ptr(&self, row: usize) -> *const i8 {
        self.codes.as_padded_slice()[row * self.blocks_per_row * CODE_VALUES..].as_ptr().cast()
    }

    /// The blocks of a row; rows are [`QuantizedActivations::blocks_per_row`] blocks apart.
    pub fn blocks_ptr(&self, row: usize) -> *const LhsBlock {
        self.blocks.as_padded_slice()[row * self.blocks_per_row * BLOCK_VALUES..].as_ptr().cast()
    }
}

struct QuantizeRows<'a> {
    rows: &'a [f32],
    k: usize,
    max_code: f32,
    output: &'a mut QuantizedActivations,
}

impl SimdKernel for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        let Self { rows, k, max_code, output } = self;
        let (row_count, blocks) = (output.rows(), output.blocks_per_row);
        assert!(row_count * k <= rows.len(), "the input holds every row");
        let codes: *mut i8 = output.codes.as_mut_slice().as_mut_ptr().cast();
        let lhs_blocks: *mut LhsBlock = output.blocks.as_mut_slice().as_mut_ptr().cast();
        let mut row = 0;
        while row < row_count {
            let mut block = 0;
            while block < blocks {
                let (first_k, index) = (block * BLOCK_SIZE, row * blocks + block);
                let remaining = k - first_k;
                // SAFETY: the block's values lie within `rows`, as asserted, its 32 codes and its `LhsBlock` within the
                // buffers, which are aligned to cache lines; loads are limited to `remaining` values. The CPU supports `L`.
                unsafe {
                    let src = rows.as_ptr().add(row * k + first_k);
                    let (low, high) = match remaining >= BLOCK_SIZE {
                        true => (L::load(src), L::load(src.add(LANES))),
                        false => {
                            (L::load_partial(src, remaining), load_second_half::<L>(src.wrapping_add(LANES), remaining))
                        }
                    };
                    let zero = L::splat(0.0);
                    let max_abs = low.max(zero.sub(low)).max(high.max(zero.sub(high))).reduce_max();
                    // Blocks too small to have a finite inverse scale become 0.
                    let inverse_scale = max_code / max_abs;
                    let inverse_scale = L::splat(if inverse_scale.is_finite() { inverse_scale } else { 0.0 });
                    let (low, high) =
                        (low.mul(inverse_scale).round_ties_even(), high.mul(inverse_scale).round_ties_even());
                    let dst = codes.add(index * BLOCK_SIZE);
                    low.store_i8(dst);
                    high.store_i8(dst.add(LANES));
                    let negated_code_sum = -(low.add(high).reduce_sum() as i32);
                    lhs_blocks.add(index).write(LhsBlock { scale: max_abs / max_code, negated_code_sum });
                }
                block += 1;
            }
            row += 1;
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

    /// Codes of a block, and what they share.
    fn block(quantized: &QuantizedActivations, row: usize, index: usize) -> ([i8; BLOCK_SIZE], LhsBlock) {
        assert!(row < quantized.rows() && index < quantized.blocks_per_row());
        // SAFETY: the row and the block exist, as asserted.
        unsafe {
            let codes = quantized.codes_ptr(row).add(index * BLOCK_SIZE).cast::<[i8; BLOCK_SIZE]>().read();
            (codes, quantized.blocks_ptr(row).add(index).read())
        }
    }

    #[test]
    fn values_are_quantized_block_by_block() {
        let rows: Vec<f32> = (0..2 * 40).map(|index| (index as f32 * 0.7).sin() * (1 + index / 40) as f32).collect();
        let formats = [(QuantFormat::Q8_0, 63), (QuantFormat::Q4_1, 127)];
        for (isa, (format, max_code)) in Isa::available().into_iter().flat_map(|isa| formats.map(|of| (isa, of))) {
            let quantized = QuantizedActivations::new(isa, &rows, 40, format);
            assert_eq!((quantized.rows(), quantized.blocks_per_row()), (2, 2));
            for (row, index) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (codes, LhsBlock { scale, negated_code_sum }) = block(&quantized, row, index);
                let block_values = &rows[row * 40..][..40][index * BLOCK_SIZE..];
                let block_values = &block_values[..block_values.len().min(BLOCK_SIZE)];
                let is_close =
                    |(code, number): (&i8, &f32)| (f32::from(*code) * scale - number).abs() <= 0.5001 * scale;
                assert!(codes.iter().zip(block_values).all(is_close), "{isa:?}: {codes:?}");
                assert!(codes[block_values.len()..].iter().all(|code| *code == 0), "{codes:?}");
                assert_eq!(codes.iter().map(|code| code.unsigned_abs()).max(), Some(max_code));
                assert_eq!(codes.iter().map(|code| i32::from(*code)).sum::<i32>(), -negated_code_sum);
            }
        }
        let mut rows = [0.0; 96];
        rows[40] = 1e-38;
        let quantized = QuantizedActivations::new(Isa::detect(), &rows, 96, QuantFormat::Q8_0);
        for index in 0..3 {
            let (codes, LhsBlock { scale, negated_code_sum }) = block(&quantized, 0, index);
            assert!(codes.iter().all(|code| *code == 0) && scale < 1e-37 && negated_code_sum == 0);
        }
    }
}
