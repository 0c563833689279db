//! Quantization formats of frozen weights, and the rounding to them. No kernels.
//!
//! 32 columns of a product form a strip, and 32 steps of k in it a block: first the scales, then the codes, with both
//! panels of sixteen lanes side by side. So a product reads memory sequentially. Blocks are whole cache lines.

use crate::Tensor;

pub use block::QuantBlock;

mod block;

/// Weights of a row in a block; in most formats they share a scale.
pub const BLOCK_SIZE: usize = 32;
/// Columns of a strip.
pub const STRIP_COLUMNS: usize = 32;

/// Quantization format of a weight. The names are GGUF's except for the last two, which store GGUF's other formats
/// without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantFormat {
    /// IEEE half: 2 bytes per weight.
    F16,
    /// bfloat16: 2 bytes per weight.
    Bf16,
    /// s·q with q from −128 to 127: 34 bytes per 32 weights.
    Q8_0,
    /// s·(q − 8) with q from 0 to 15: 18 bytes per 32 weights.
    Q4_0,
    /// s·q + m with q from 0 to 15: 20 bytes per 32 weights.
    Q4_1,
    /// As Q4_1 with s and m as `f32`, for Q4_K: 24 bytes per 32 weights.
    AffineQ4,
    /// s·q + m with q from 0 to 255, s and m as `f32` per 16 weights, for Q2_K, Q3_K, Q5_K, Q6_K, Q5_0 and Q5_1: 48
    /// bytes per 32 weights.
    AffineQ8,
}

impl QuantFormat {
    pub const ALL: [Self; 7] =
        [Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::AffineQ4, Self::AffineQ8];

    /// Whether the int8 kernels support the format.
    pub const fn supports_integer_dot(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::AffineQ4)
    }

    /// Largest magnitude of the activations' codes in an integer product: the sum of two products has to fit into 16 bits,
    /// as AVX2 adds them (255 · 63 · 2, or 15 · 127 · 2).
    pub const fn max_activation_code(self) -> u8 {
        if self.code_bits() == 8 { 63 } else { 127 }
    }

    /// Weights of a row that share a scale.
    pub const fn values_per_scale(self) -> usize {
        if matches!(self, Self::AffineQ8) { BLOCK_SIZE / 2 } else { BLOCK_SIZE }
    }

    /// Bytes of a row's block, in memory and in file layout.
    pub const fn row_block_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2 * BLOCK_SIZE,
            Self::Q8_0 => 2 + BLOCK_SIZE,
            Self::Q4_0 => 2 + BLOCK_SIZE / 2,
            Self::Q4_1 => 4 + BLOCK_SIZE / 2,
            Self::AffineQ4 => 8 + BLOCK_SIZE / 2,
            Self::AffineQ8 => 16 + BLOCK_SIZE,
        }
    }

    /// Bytes of a scale or a minimum.
    pub const fn scale_bytes(self) -> usize {
        if matches!(self, Self::AffineQ4 | Self::AffineQ8) { 4 } else { 2 }
    }

    /// Number of scales and of minima in a row's block.
    pub const fn scale_counts(self) -> [usize; 2] {
        match self {
            Self::F16 | Self::Bf16 => [0, 0],
            Self::Q8_0 | Self::Q4_0 => [1, 0],
            Self::Q4_1 | Self::AffineQ4 => [1, 1],
            Self::AffineQ8 => [2, 2],
        }
    }

    /// Bytes of a strip's block.
    pub const fn strip_block_bytes(self) -> usize {
        self.row_block_bytes() * STRIP_COLUMNS
    }

    /// Byte offset of a column's scale in a strip's block: all scales precede all minima.
    #[inline]
    pub fn scale_offset(self, column: usize, index: usize) -> usize {
        self.scale_bytes() * (index * STRIP_COLUMNS + column)
    }

    /// Bit offset of a code in a strip's block.
    #[inline]
    pub fn code_bit_offset(self, column: usize, k: usize) -> usize {
        let packed_bit_offset =
            |per_word: usize, header_bytes: usize| 8 * header_bytes + 32 * (k / per_word * STRIP_COLUMNS + column);
        match self {
            Self::F16 => 16 * (k * STRIP_COLUMNS + column),
            Self::Bf16 => packed_bit_offset(2, 0) + 16 * (k % 2),
            Self::Q8_0 => packed_bit_offset(4, 2 * STRIP_COLUMNS) + 8 * (k % 4),
            Self::Q4_0 => packed_bit_offset(8, 2 * STRIP_COLUMNS) + 4 * nibble_index(k % 8),
            Self::Q4_1 => packed_bit_offset(8, 4 * STRIP_COLUMNS) + 4 * nibble_index(k % 8),
            Self::AffineQ4 => packed_bit_offset(8, 8 * STRIP_COLUMNS) + 4 * nibble_index(k % 8),
            Self::AffineQ8 => packed_bit_offset(4, 16 * STRIP_COLUMNS) + 8 * (k % 4),
        }
    }

    pub const fn code_bits(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Q8_0 | Self::AffineQ8 => 8,
            Self::Q4_0 | Self::Q4_1 | Self::AffineQ4 => 4,
        }
    }
}

/// Index of a step's nibble in its word: four neighbouring steps are the lower nibbles of four neighbouring bytes, as
/// the integer kernels read them.
const fn nibble_index(k: usize) -> usize {
    2 * (k % 4) + k / 4
}

/// Weight matrix `(output, input)` as stored in a checkpoint.
#[derive(Debug, Clone)]
pub enum StoredWeight {
    Dense(Tensor),
    /// Row-major; every row is a whole number of blocks.
    Quantized {
        format: QuantFormat,
        shape: [usize; 2],
        bytes: Vec<u8>,
    },
}

impl StoredWeight {
    /// `(output, input)`
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(tensor) => [tensor.shape[0], tensor.shape[1]],
            Self::Quantized { shape, .. } => *shape,
        }
    }

    /// Transposes the matrix. 16-bit formats stay 16-bit if the new rows are whole blocks; other formats become dense.
    pub fn transposed(self) -> Self {
        let [rows, columns] = self.shape();
        match self {
            Self::Quantized { format: format @ (QuantFormat::F16 | QuantFormat::Bf16), bytes, .. }
                if rows.is_multiple_of(BLOCK_SIZE) =>
            {
                let bytes = transpose(bytes.as_chunks::<2>().0, [rows, columns]).as_flattened().to_vec();
                Self::Quantized { format, shape: [columns, rows], bytes }
            }
            other => {
                let values = transpose(&other.into_dequantized().values, [rows, columns]);
                Self::Dense(Tensor::new([columns, rows], values))
            }
        }
    }

    /// Dequantizes to `f32`.
    pub fn into_dequantized(self) -> Tensor {
        match self {
            Self::Dense(tensor) => tensor,
            Self::Quantized { format, shape: [output, input], bytes } => {
                let mut values = vec![0.0; output * input];
                let rows = bytes.chunks_exact((bytes.len() / output.max(1)).max(1));
                values.chunks_exact_mut(input).zip(rows).for_each(|(out, row)| format.dequantize_row(row, out));
                Tensor::new([output, input], values)
            }
        }
    }
}

fn transpose<T: Copy>(values: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_swaps_rows_and_columns_in_every_format() {
        let values: Vec<f32> = (0..32 * 3).map(|number| number as f32).collect();
        let transposed = StoredWeight::Dense(Tensor::new([32, 3], values.clone())).transposed();
        assert_eq!(transposed.shape(), [3, 32]);
        let expected = transposed.clone().into_dequantized();
        assert_eq!(expected.values[..3], [0.0, 3.0, 6.0]);
        let bytes = values.iter().flat_map(|number| half::f16::from_f32(*number).to_le_bytes()).collect();
        let halves = StoredWeight::Quantized { format: QuantFormat::F16, shape: [32, 3], bytes }.transposed();
        assert!(matches!(halves, StoredWeight::Quantized { format: QuantFormat::F16, shape: [3, 32], .. }));
        assert_eq!(halves.clone().into_dequantized(), expected);
        let restored = halves.transposed();
        assert_eq!(restored.shape(), [32, 3]);
        assert_eq!(restored.into_dequantized().values, values);
    }
}
