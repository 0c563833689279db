//! Quantized weight `(output, input)` in strips of 32 columns. Several threads build the strips.

use crate::Tensor;
use crate::backend::cpu::memory::{ArenaSlice, CacheLine};
use crate::backend::cpu::threads::par_for_each_chunk;
use crate::quant::{BLOCK_SIZE, QuantBlock, QuantFormat, STRIP_COLUMNS};
use half::f16;

/// Quantized weight `(output, input)`. Columns beyond the last row are 0.
#[derive(Debug)]
pub struct QuantizedWeight {
    format: QuantFormat,
    out_features: usize,
    in_features: usize,
    storage: ArenaSlice,
}

impl QuantizedWeight {
    /// Builds the weight `(output, input)` from the block of each row and block index, in parallel.
    pub fn from_blocks(
        format: QuantFormat,
        [output, input]: [usize; 2],
        block: impl Fn(usize, usize) -> QuantBlock + Sync,
    ) -> Self {
        let strip_bytes = strip_bytes(format, input);
        let bytes = output.div_ceil(STRIP_COLUMNS) * strip_bytes;
        let storage = ArenaSlice::zeros(bytes.div_ceil(size_of::<CacheLine>()));
        let mut weight = Self { format, out_features: output, in_features: input, storage };
        par_for_each_chunk(&mut weight.as_bytes_mut()[..bytes], strip_bytes.max(1), |strip, bytes| {
            // Row by row, because a row is contiguous where it comes from.
            for (column, row) in (strip * STRIP_COLUMNS..output).take(STRIP_COLUMNS).enumerate() {
                for (index, bytes) in bytes.chunks_exact_mut(format.strip_block_bytes()).enumerate() {
                    write_block(bytes, format, column, &block(row, index));
                }
            }
        });
        weight
    }

    /// Quantizes the rows of a matrix.
    pub fn quantize(format: QuantFormat, weight: &[f32], output: usize, input: usize) -> Self {
        assert_eq!(weight.len(), output * input, "the weight has all its rows");
        Self::from_blocks(format, [output, input], |row, index| {
            let values = &weight[row * input..(row + 1) * input];
            QuantBlock::quantize(format, &values[index * BLOCK_SIZE..input.min((index + 1) * BLOCK_SIZE)])
        })
    }

    /// Copies all rows, without loss, each in whole blocks of the format's file layout: GGUF's blocks of 32, or 16-bit values,
    /// little-endian.
    pub fn from_rows(format: QuantFormat, [output, input]: [usize; 2], bytes: &[u8]) -> Self {
        let (block_bytes, blocks) = (format.row_block_bytes(), input / BLOCK_SIZE);
        assert!(input.is_multiple_of(BLOCK_SIZE), "rows in file layout are whole blocks");
        assert_eq!(bytes.len(), output * blocks * block_bytes, "the weight has all its blocks");
        Self::from_blocks(format, [output, input], |row, index| {
            QuantBlock::parse(format, &bytes[(row * blocks + index) * block_bytes..][..block_bytes])
        })
    }

    /// Dequantizes all rows `(output, input)`.
    pub fn dequantize(&self) -> Tensor {
        let mut values = vec![0.0; self.out_features * self.in_features];
        values.chunks_exact_mut(self.in_features).enumerate().for_each(|(row, out)| self.dequantize_row(row, out));
        Tensor::new([self.out_features, self.in_features], values)
    }

    /// Dequantizes one row.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.in_features, "the row has the weight's input width");
        for (index, out) in out.chunks_mut(BLOCK_SIZE).enumerate() {
            out.copy_from_slice(&self.read_block(row, index).dequantize(self.format)[..out.len()]);
        }
    }

    pub fn format(&self) -> QuantFormat {
        self.format
    }

    pub fn out_features(&self) -> usize {
        self.out_features
    }

    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Number of strips.
    pub fn strip_count(&self) -> usize {
        self.out_features.div_ceil(STRIP_COLUMNS)
    }

    /// Bytes per strip.
    pub(super) fn strip_bytes(&self) -> usize {
        strip_bytes(self.format, self.in_features)
    }

    /// The bytes of all strips.
    pub fn as_bytes(&self) -> &[u8] {
        let lines = self.storage.lines();
        // SAFETY: a `CacheLine` is plain initialised memory without padding, and bytes need no alignment.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
    }

    fn as_bytes_mut(&mut self) -> &mut [u8] {
        let lines = self.storage.lines_mut();
        // SAFETY: a `CacheLine` is plain memory without padding, every bit pattern is a valid `f32`, and `&mut self`
        // makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
    }

    /// Byte offset of the strip's block that holds these 32 weights of a row.
    fn block_offset(&self, row: usize, block_index: usize) -> usize {
        assert!(row < self.out_features, "the row lies within the weight");
        row / STRIP_COLUMNS * self.strip_bytes() + block_index * self.format.strip_block_bytes()
    }

    /// One block of a row.
    pub fn read_block(&self, row: usize, block_index: usize) -> QuantBlock {
        let (format, block_start, column) = (self.format, self.block_offset(row, block_index), row % STRIP_COLUMNS);
        let bytes = &self.as_bytes()[block_start..block_start + format.strip_block_bytes()];
        let read_u16 = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let [scales, minima] = format.scale_counts();
        let read_scale = |index: usize| {
            let offset = format.scale_offset(column, index);
            match format.scale_bytes() {
                2 => f16::from_bits(read_u16(offset)).to_f32(),
                _ => f32::from_le_bytes(std::array::from_fn(|byte| bytes[offset + byte])),
            }
        };
        let read_scales = |start_index: usize, count: usize| {
            std::array::from_fn(|index| if index < count { read_scale(start_index + index) } else { 0.0 })
        };
        let codes = std::array::from_fn(|k| {
            let (offset, bit) = (format.code_bit_offset(column, k) / 8, format.code_bit_offset(column, k) % 8);
            match format.code_bits() {
                16 => read_u16(offset),
                8 => u16::from(bytes[offset]),
                _ => u16::from(bytes[offset] >> bit & 15),
            }
        });
        QuantBlock { scales: read_scales(0, scales), minima: read_scales(scales, minima), codes }
    }
}

/// Writes the block of one column of a strip to the strip's block `bytes`.
fn write_block(bytes: &mut [u8], format: QuantFormat, column: usize, block: &QuantBlock) {
    let [scales, minima] = format.scale_counts();
    let scales_and_minima = block.scales[..scales].iter().chain(&block.minima[..minima]);
    for (index, scale) in scales_and_minima.enumerate() {
        let offset = format.scale_offset(column, index);
        match format.scale_bytes() {
            2 => bytes[offset..offset + 2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes()),
            _ => bytes[offset..offset + 4].copy_from_slice(&scale.to_le_bytes()),
        }
    }
    let codes = block.codes.iter().enumerate().map(|(k, code)| (format.code_bit_offset(column, k), *code));
    match format.code_bits() {
        16 => codes.for_each(|(bit, code)| bytes[bit / 8..bit / 8 + 2].copy_from_slice(&code.to_le_bytes())),
        8 => codes.for_each(|(bit, code)| bytes[bit / 8] = code as u8),
        _ => codes.for_each(|(bit, code)| bytes[bit / 8] |= (code as u8) << (bit % 8)),
    }
}

fn strip_bytes(format: QuantFormat, input: usize) -> usize {
    input.div_ceil(BLOCK_SIZE) * format.strip_block_bytes()
}
