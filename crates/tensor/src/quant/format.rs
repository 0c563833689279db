//! The forms of a weight in memory.
//!
//! Thirty-two columns of a product, a strip, lie together, and in it 32 steps of the depth, a block: first the scales, then
//! the codes, both panels of sixteen lanes side by side. So a product reads memory from one end to the other. Blocks are
//! whole cache lines.

/// Weights along the depth that lie together: in most forms they share a scale.
pub const BLOCK_SIZE: usize = 32;
/// Columns that lie together.
pub const STRIP_COLUMNS: usize = 32;

/// How a weight is stored. The names are GGUF's, but for the last two, which hold its other forms without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantFormat {
    /// IEEE halves: 2 bytes a weight.
    F16,
    /// The upper half of an `f32`: 2 bytes a weight.
    Bf16,
    /// s·q, q from −128 to 127: 34 bytes for 32 weights.
    Q8_0,
    /// s·(q − 8), q from 0 to 15: 18 bytes for 32 weights.
    Q4_0,
    /// s·q + m, q from 0 to 15: 20 bytes for 32 weights.
    Q4_1,
    /// The same with s and m as `f32`, for Q4_K: 24 bytes for 32 weights.
    AffineQ4,
    /// s·q + m, q from 0 to 255, s and m as `f32` for each sixteen weights, for Q2_K, Q3_K, Q5_K, Q6_K, Q5_0 and Q5_1: 48 bytes
    /// for 32 weights.
    AffineQ8,
}

impl QuantFormat {
    pub const ALL: [Self; 7] =
        [Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::AffineQ4, Self::AffineQ8];

    /// Whether its codes multiply as whole numbers.
    pub const fn supports_integer_dot(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::AffineQ4)
    }

    /// Weights along the depth that have one scale.
    pub const fn values_per_scale(self) -> usize {
        if matches!(self, Self::AffineQ8) { BLOCK_SIZE / 2 } else { BLOCK_SIZE }
    }

    /// Bytes of 32 weights of a row, in memory as in a file of this form.
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

    /// Bytes of a scale, and of a minimum.
    pub const fn scale_bytes(self) -> usize {
        if matches!(self, Self::AffineQ4 | Self::AffineQ8) { 4 } else { 2 }
    }

    /// How many scales a row's block has, and how many minima.
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

    /// Where a strip's block holds a column's head, in bytes: first all scales, then all minima.
    pub fn scale_offset(self, column: usize, index: usize) -> usize {
        self.scale_bytes() * (index * STRIP_COLUMNS + column)
    }

    /// Where a strip's block holds a code, in bits.
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

    pub fn code_bits(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Q8_0 | Self::AffineQ8 => 8,
            Self::Q4_0 | Self::Q4_1 | Self::AffineQ4 => 4,
        }
    }
}

/// Where in its word the nibble of a step lies: four neighbouring steps are the lower nibbles of four neighbouring bytes, as
/// integer products would read them.
const fn nibble_index(k: usize) -> usize {
    2 * (k % 4) + k / 4
}
