//! Activations quantized to integers in blocks with one scale each (as llama.cpp's Q8_1): of 8 bits for weights of 4 to 7 bits, of
//! 7 for weights of 8. A block has as many values as weights share a scale, 16, 32 or 64.

use crate::backend::cpu::matrix::MatrixBuf;
use crate::backend::cpu::simd::{Isa, LANES, Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, QuantFormat};

/// Quantized rows `(rows, k)`, k padded with zeros to whole blocks, and to a multiple of 32.
pub struct QuantizedActivations {
    /// Codes of all rows, four to a value.
    codes: MatrixBuf,
    /// A [`LhsBlock`] for each block of all rows.
    blocks: MatrixBuf,
    rows: usize,
    codes_per_row: usize,
    blocks_per_row: usize,
}

/// What the codes of a block share.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LhsBlock {
    pub scale: f32,
    /// The sum of the codes times −1.
    pub negated_code_sum: i32,
}

/// `f32` values that a [`LhsBlock`] takes.
const BLOCK_VALUES: usize = size_of::<LhsBlock>() / size_of::<f32>();

impl QuantizedActivations {
    /// Quantizes rows of `k` values for products with weights of this format: each block to multiples of its largest
    /// magnitude / [`QuantFormat::max_activation_code`].
    pub fn new(isa: Isa, rows: &[f32], k: usize, format: QuantFormat) -> Self {
        let values_per_block = format.values_per_scale();
        let (row_count, codes_per_row) = (rows.len() / k.max(1), k.next_multiple_of(values_per_block.max(BLOCK_SIZE)));
        let blocks_per_row = codes_per_row / values_per_block;
        let mut quantized = Self {
            codes: MatrixBuf::new(row_count, codes_per_row / size_of::<f32>()),
            blocks: MatrixBuf::new(row_count, blocks_per_row * BLOCK_VALUES),
            rows: row_count,
            codes_per_row,
            blocks_per_row,
        };
        let max_code = f32::from(format.max_activation_code());
        let output = &mut quantized;
        match values_per_block / LANES {
            1 => isa.run(QuantizeRows::<1> { rows, k, max_code, output }),
            2 => isa.run(QuantizeRows::<2> { rows, k, max_code, output }),
            _ => isa.run(QuantizeRows::<4> { rows, k, max_code, output }),
        }
        quantized
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Blocks per row.
    pub fn blocks_per_row(&self) -> usize {
        self.blocks_per_row
    }

    /// First code of a row. The next row starts [`QuantizedActivations::codes_per_row`] bytes later.
    pub fn codes_ptr(&self, row: usize) -> *const i8 {
        self.codes.as_padded_slice()[row * self.codes_per_row / size_of::<f32>()..].as_ptr().cast()
    }

    /// Codes of a row, one byte each: k rounded up to whole blocks and to a multiple of 32.
    pub fn codes_per_row(&self) -> usize {
        self.codes_per_row
    }

    /// The blocks of a row; rows are [`QuantizedActivations::blocks_per_row`] blocks apart.
    pub fn blocks_ptr(&self, row: usize) -> *const LhsBlock {
        self.blocks.as_padded_slice()[row * self.blocks_per_row * BLOCK_VALUES..].as_ptr().cast()
    }
}

/// Blocks that are quantized at once. One instruction then reduces or divides for all of them.
const GROUP_BLOCKS: usize = 4;

/// Quantizes rows in blocks of this many vectors.
struct QuantizeRows<'a, const VECTORS: usize> {
    rows: &'a [f32],
    k: usize,
    max_code: f32,
    output: &'a mut QuantizedActivations,
}

impl<const VECTORS: usize> SimdKernel for QuantizeRows<'_, VECTORS> {
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
                let index = row * blocks + block;
                // SAFETY: the row lies within `rows`, as asserted, and the codes and the `LhsBlock` of each of its blocks within the
                // buffers, which are aligned to cache lines. The CPU supports `L`.
                unsafe {
                    let codes = codes.add(index * VECTORS * LANES);
                    let src = rows.as_ptr().add(row * k);
                    let first_k = block * VECTORS * LANES;
                    let count = GROUP_BLOCKS.min(blocks - block);
                    quantize_group::<L, VECTORS>(src, first_k, k, max_code, count, codes, lhs_blocks.add(index));
                }
                block += GROUP_BLOCKS;
            }
            row += 1;
        }
    }
}

/// Quantizes up to [`GROUP_BLOCKS`] blocks of a row of `k` values.
///
/// # Safety
/// The CPU supports the instructions of `L`; `row` is readable for `k` values, `codes` and `lhs_blocks` are writable for `count`
/// blocks.
#[inline(always)]
unsafe fn quantize_group<L: Simd, const VECTORS: usize>(
    row: *const f32,
    first_k: usize,
    k: usize,
    max_code: f32,
    count: usize,
    codes: *mut i8,
    lhs_blocks: *mut LhsBlock,
) {
    // SAFETY: loads stop at the row's end, stores at the last block; the CPU supports the instructions of `L`.
    unsafe {
        let zero = L::splat(0.0);
        let (mut values, mut maxima, mut code_sums) =
            ([[zero; VECTORS]; GROUP_BLOCKS], [zero; GROUP_BLOCKS], [zero; GROUP_BLOCKS]);
        let mut block = 0;
        while block < GROUP_BLOCKS {
            let mut vector = 0;
            while vector < VECTORS {
                let at = first_k.wrapping_add(block.wrapping_mul(VECTORS).wrapping_add(vector).wrapping_mul(LANES));
                let loaded = match k.saturating_sub(at) {
                    0 => zero,
                    rest if rest < LANES => L::load_partial(row.wrapping_add(at), rest),
                    _ => L::load(row.wrapping_add(at)),
                };
                values[block][vector] = loaded;
                maxima[block] = maxima[block].max(loaded).max(zero.sub(loaded));
                vector = vector.wrapping_add(1);
            }
            block = block.wrapping_add(1);
        }
        let maxima = L::reduce_maxima(maxima);
        // Blocks too small to have a finite inverse scale become 0.
        let inverse_scales =
            maxima.map(|max_abs| max_code / max_abs).map(|inverse| if inverse.is_finite() { inverse } else { 0.0 });
        block = 0;
        while block < count {
            let inverse_scale = L::splat(inverse_scales[block]);
            let mut vector = 0;
            while vector < VECTORS {
                let rounded = values[block][vector].mul(inverse_scale).round_ties_even();
                rounded
                    .store_i8(codes.wrapping_add(block.wrapping_mul(VECTORS).wrapping_add(vector).wrapping_mul(LANES)));
                code_sums[block] = code_sums[block].add(rounded);
                vector = vector.wrapping_add(1);
            }
            block = block.wrapping_add(1);
        }
        let code_sums = L::reduce_sums(code_sums);
        block = 0;
        while block < count {
            // A sum of 32 codes is far below the range's end.
            let negated_code_sum = -code_sums[block].to_int_unchecked::<i32>();
            lhs_blocks.add(block).write(LhsBlock { scale: maxima[block] / max_code, negated_code_sum });
            block = block.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of a block, and what they share.
    fn block(quantized: &QuantizedActivations, row: usize, index: usize) -> (Vec<i8>, LhsBlock) {
        assert!(row < quantized.rows() && index < quantized.blocks_per_row());
        let len = quantized.codes_per_row() / quantized.blocks_per_row();
        // SAFETY: the row and the block exist, as asserted.
        unsafe {
            let codes = std::slice::from_raw_parts(quantized.codes_ptr(row).add(index * len), len);
            (codes.to_vec(), quantized.blocks_ptr(row).add(index).read())
        }
    }

    #[test]
    fn values_are_quantized_block_by_block() {
        const K: usize = 80;
        let rows: Vec<f32> = (0..2 * K).map(|index| (index as f32 * 0.7).sin() * (1 + index / K) as f32).collect();
        let formats =
            [(QuantFormat::Q8_0, 63), (QuantFormat::Q4_1, 127), (QuantFormat::Q7Group64, 127), (QuantFormat::Q6K, 127)];
        for (isa, (format, max_code)) in Isa::available().into_iter().flat_map(|isa| formats.map(|of| (isa, of))) {
            let (quantized, block_size) = (QuantizedActivations::new(isa, &rows, K, format), format.values_per_scale());
            let blocks = K.next_multiple_of(block_size.max(BLOCK_SIZE)) / block_size;
            assert_eq!((quantized.rows(), quantized.blocks_per_row()), (2, blocks));
            for (row, index) in (0..2).flat_map(|row| (0..K.div_ceil(block_size)).map(move |index| (row, index))) {
                let (codes, LhsBlock { scale, negated_code_sum }) = block(&quantized, row, index);
                let block_values = &rows[row * K..][..K][index * block_size..];
                let block_values = &block_values[..block_values.len().min(block_size)];
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
