//! The forms of a weight in memory.
//!
//! Thirty-two columns of a product, a strip, lie together, and in it 32 steps of the depth, a block: first the scales, then
//! the codes, both panels of sixteen lanes side by side. So a product reads memory from one end to the other. Blocks are
//! whole cache lines.

use crate::cpu::lanes::LANES;

/// Weights along the depth that lie together: in most forms they share a scale.
pub const BLOCK: usize = 32;
/// Columns that lie together.
pub const STRIP: usize = 2 * LANES;

/// How a weight is stored. The names are GGUF's, but for the last two, which hold its other forms without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
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
    Wide4,
    /// s·q + m, q from 0 to 255, s and m as `f32` for each sixteen weights, for Q2_K, Q3_K, Q5_K, Q6_K, Q5_0 and Q5_1: 48 bytes
    /// for 32 weights.
    Wide8,
}

impl Form {
    pub const ALL: [Self; 7] = [Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Wide4, Self::Wide8];

    /// Whether its codes multiply as whole numbers.
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Wide4)
    }

    /// Weights along the depth that have one scale.
    pub const fn span(self) -> usize {
        if matches!(self, Self::Wide8) { BLOCK / 2 } else { BLOCK }
    }

    /// Bytes of 32 weights of a row, in memory as in a file of this form.
    pub const fn file_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2 * BLOCK,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4_0 => 2 + BLOCK / 2,
            Self::Q4_1 => 4 + BLOCK / 2,
            Self::Wide4 => 8 + BLOCK / 2,
            Self::Wide8 => 16 + BLOCK,
        }
    }

    /// Bytes of a scale, and of a minimum.
    pub const fn head_bytes(self) -> usize {
        if matches!(self, Self::Wide4 | Self::Wide8) { 4 } else { 2 }
    }

    /// How many scales a row's block has, and how many minima.
    pub const fn heads(self) -> [usize; 2] {
        match self {
            Self::F16 | Self::Bf16 => [0, 0],
            Self::Q8_0 | Self::Q4_0 => [1, 0],
            Self::Q4_1 | Self::Wide4 => [1, 1],
            Self::Wide8 => [2, 2],
        }
    }

    /// Bytes of a strip's block.
    pub const fn block_bytes(self) -> usize {
        self.file_bytes() * STRIP
    }

    /// Where a strip's block holds a column's head, in bytes: first all scales, then all minima.
    pub fn head(self, column: usize, index: usize) -> usize {
        self.head_bytes() * (index * STRIP + column)
    }

    /// Where a strip's block holds a code, in bits.
    pub fn place(self, column: usize, depth: usize) -> usize {
        let word = |per_word: usize, head: usize| 8 * head + 32 * (depth / per_word * STRIP + column);
        match self {
            Self::F16 => 16 * (depth * STRIP + column),
            Self::Bf16 => word(2, 0) + 16 * (depth % 2),
            Self::Q8_0 => word(4, 2 * STRIP) + 8 * (depth % 4),
            Self::Q4_0 => word(8, 2 * STRIP) + 4 * nibble(depth % 8),
            Self::Q4_1 => word(8, 4 * STRIP) + 4 * nibble(depth % 8),
            Self::Wide4 => word(8, 8 * STRIP) + 4 * nibble(depth % 8),
            Self::Wide8 => word(4, 16 * STRIP) + 8 * (depth % 4),
        }
    }

    pub fn code_bits(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Q8_0 | Self::Wide8 => 8,
            Self::Q4_0 | Self::Q4_1 | Self::Wide4 => 4,
        }
    }
}

/// Where in its word the nibble of a step lies: four neighbouring steps are the lower nibbles of four neighbouring bytes, as
/// integer products would read them.
const fn nibble(step: usize) -> usize {
    2 * (step % 4) + step / 4
}
