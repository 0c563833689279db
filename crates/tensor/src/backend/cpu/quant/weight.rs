//! Quantized weight `(output, input)` in strips of 32 columns. Several threads build the strips.

use crate::Tensor;
use crate::backend::cpu::memory::{ArenaSlice, CacheLine};
use crate::backend::cpu::threads::par_for_each_chunk;
use crate::quant::{BLOCK_SIZE, BitField, QuantBlock, QuantFormat, STRIP_COLUMNS};
use half::f16;

/// Quantized weight `(output, input)`. Columns beyond the last row are 0.
#[derive(Debug)]
pub struct QuantizedWeight {
    format: QuantFormat,
    out_features: usize,
    in_features: usize,
    /// [`QuantFormat::code_bit_fields`] of each code of a block.
    bit_fields: CodeBitFields,
    storage: ArenaSlice,
}

type CodeBitFields = [[BitField; 2]; BLOCK_SIZE];

impl QuantizedWeight {
    /// Builds the weight `(output, input)` from the block of each row and block index, in parallel.
    pub fn from_blocks(
        format: QuantFormat,
        [output, input]: [usize; 2],
        block: impl Fn(usize, usize) -> QuantBlock + Sync,
    ) -> Self {
        let bit_fields = code_bit_fields(format);
        Self::from_strips(format, [output, input], |strip, bytes| {
            // Row by row, because a row is contiguous where it comes from.
            for (column, row) in (strip * STRIP_COLUMNS..output).take(STRIP_COLUMNS).enumerate() {
                (0..input.div_ceil(BLOCK_SIZE)).for_each(|index| {
                    write_block(bytes, format, &bit_fields, [index, column], &block(row, index));
                });
            }
        })
    }

    /// Builds the weight `(output, input)` strip by strip, in parallel. `fill_strip` gets the index of a strip and its bytes, which are 0.
    pub(super) fn from_strips(
        format: QuantFormat,
        [output, input]: [usize; 2],
        fill_strip: impl Fn(usize, &mut [u8]) + Sync,
    ) -> Self {
        let strip_bytes = format.strip_bytes(input.div_ceil(BLOCK_SIZE));
        let bytes = output.div_ceil(STRIP_COLUMNS) * strip_bytes;
        let storage = ArenaSlice::zeros(bytes.div_ceil(size_of::<CacheLine>()));
        let bit_fields = code_bit_fields(format);
        let mut weight = Self { format, out_features: output, in_features: input, bit_fields, storage };
        par_for_each_chunk(&mut weight.as_bytes_mut()[..bytes], strip_bytes.max(1), fill_strip);
        weight
    }

    /// Quantizes the rows of a matrix, to a format that [`QuantBlock::quantize`] makes.
    pub fn quantize(format: QuantFormat, weight: &[f32], output: usize, input: usize) -> Self {
        assert_eq!(weight.len(), output * input, "the weight has all its rows");
        Self::from_blocks(format, [output, input], |row, index| {
            let values = &weight[row * input..(row + 1) * input][index * BLOCK_SIZE..];
            QuantBlock::quantize(format, &values[..values.len().min(BLOCK_SIZE)])
        })
    }

    /// Copies all rows, without loss, each in whole blocks of the format's file layout: GGUF's blocks, or 16-bit values,
    /// little-endian.
    pub fn from_rows(format: QuantFormat, [output, input]: [usize; 2], bytes: &[u8]) -> Self {
        let (block_bytes, row_blocks) = (format.file_block_bytes(), input / format.file_block_size());
        assert!(input.is_multiple_of(format.file_block_size()), "rows in file layout are whole blocks");
        assert_eq!(bytes.len(), output * row_blocks * block_bytes, "the weight has all its blocks");
        let per_superblock = format.blocks_per_superblock();
        Self::from_blocks(format, [output, input], |row, index| {
            let file_block = row * row_blocks + index / per_superblock;
            QuantBlock::parse(format, &bytes[file_block * block_bytes..][..block_bytes], index % per_superblock)
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
        self.format.strip_bytes(self.in_features.div_ceil(BLOCK_SIZE))
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

    /// One block of a row.
    pub fn read_block(&self, row: usize, block_index: usize) -> QuantBlock {
        assert!(row < self.out_features, "the row lies within the weight");
        let (format, column, strip_bytes) = (self.format, row % STRIP_COLUMNS, self.strip_bytes());
        let strip = &self.as_bytes()[row / STRIP_COLUMNS * strip_bytes..][..strip_bytes];
        let superblock = &strip[format.superblock_offset(block_index)..];
        let bytes = &strip[format.block_offset(block_index)..][..format.strip_block_bytes()];
        let read_u16 = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let read_f16 = |bytes: &[u8], at: usize| f16::from_bits(read_u16(bytes, at)).to_f32();
        let superblock_scales = std::array::from_fn(|index| match index < format.superblock_scale_count() {
            true => read_f16(superblock, format.superblock_scale_offset(column, index)),
            false => 1.0,
        });
        let [scales, minima] = format.scale_counts();
        let read_scale = |index: usize| {
            let offset = format.scale_offset(column, index);
            match format.scale_bytes() {
                1 if matches!(format, QuantFormat::Q3K | QuantFormat::Q6K) => f32::from(bytes[offset].cast_signed()),
                1 => f32::from(bytes[offset]),
                _ => read_f16(bytes, offset),
            }
        };
        let read_scales = |start_index: usize, count: usize| {
            std::array::from_fn(|index| if index < count { read_scale(start_index + index) } else { 0.0 })
        };
        let column_start = column * format.column_stride_bits();
        let read_bits = |BitField { offset, bits }: BitField| {
            let bit = column_start + offset;
            u16::from(bytes[bit / 8]) >> (bit % 8) & ((1 << bits) - 1)
        };
        let read_code = |[low, high]: [BitField; 2]| match low.bits {
            16 => read_u16(bytes, (column_start + low.offset) / 8),
            8 => u16::from(bytes[(column_start + low.offset) / 8]),
            bits => read_bits(low) | read_bits(high) << bits,
        };
        let codes = self.bit_fields.map(read_code);
        QuantBlock { superblock_scales, scales: read_scales(0, scales), minima: read_scales(scales, minima), codes }
    }
}

fn code_bit_fields(format: QuantFormat) -> CodeBitFields {
    std::array::from_fn(|k| format.code_bit_fields(k))
}

/// Writes the block of this index and column of a strip, and with the first block of a superblock its scales.
fn write_block(
    strip: &mut [u8],
    format: QuantFormat,
    bit_fields: &CodeBitFields,
    [index, column]: [usize; 2],
    block: &QuantBlock,
) {
    if index.is_multiple_of(format.blocks_per_superblock()) {
        let superblock = &mut strip[format.superblock_offset(index)..];
        for (index, scale) in block.superblock_scales.iter().take(format.superblock_scale_count()).enumerate() {
            let offset = format.superblock_scale_offset(column, index);
            superblock[offset..offset + 2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
        }
    }
    let bytes = &mut strip[format.block_offset(index)..][..format.strip_block_bytes()];
    let [scales, minima] = format.scale_counts();
    let scales_and_minima = block.scales[..scales].iter().chain(&block.minima[..minima]);
    for (index, scale) in scales_and_minima.enumerate() {
        let offset = format.scale_offset(column, index);
        match format.scale_bytes() {
            // Signed in Q3_K and Q6_K.
            1 => bytes[offset] = *scale as i16 as u8,
            _ => bytes[offset..offset + 2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes()),
        }
    }
    let column_start = column * format.column_stride_bits();
    for (code, [low, high]) in block.codes.iter().zip(bit_fields) {
        let bit = column_start + low.offset;
        match low.bits {
            16 => bytes[bit / 8..bit / 8 + 2].copy_from_slice(&code.to_le_bytes()),
            8 => bytes[bit / 8] = *code as u8,
            bits => {
                bytes[bit / 8] |= (*code as u8 & ((1 << bits) - 1)) << (bit % 8);
                let high_bit = column_start + high.offset;
                bytes[high_bit / 8] |= ((*code >> bits) as u8 & ((1 << high.bits) - 1)) << (high_bit % 8);
            }
        }
    }
}
