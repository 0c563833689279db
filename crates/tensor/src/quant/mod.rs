//! Quantization formats of frozen weights, and the rounding to them. No kernels.
//!
//! 32 columns of a product form a strip, and 32 steps of k in it a block: first the scales, then the codes, with both
//! panels of sixteen lanes side by side. So a product reads memory sequentially. In some formats several blocks form a
//! superblock: first the scales that its blocks share, then the blocks. All are whole cache lines.

mod block;
mod stored_weight;

pub use block::QuantBlock;
pub use stored_weight::StoredWeight;

/// Weights of a row in a block; in most formats they share a scale.
pub const BLOCK_SIZE: usize = 32;
/// Columns of a strip.
pub const STRIP_COLUMNS: usize = 32;
/// Quantization format of a weight. The names are GGUF's except for the last one.
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
    /// s·q + m with q from 0 to 31: 24 bytes per 32 weights. Also stores Q5_0 without loss.
    Q5_1,
    /// d·s·q − e·m with q from 0 to 3, s and m of 8 bits per 16 weights, d and e as halves per 256: 100 bytes per 256 weights.
    Q2K,
    /// d·s·(q − 4) with q from 0 to 7, s of 8 bits per 16 weights, d as a half per 256: 114 bytes per 256 weights.
    Q3K,
    /// d·s·q − e·m with q from 0 to 15, s and m of 8 bits per 32 weights, d and e as halves per 256: 148 bytes per 256 weights.
    Q4K,
    /// As Q4_K with q from 0 to 31: 180 bytes per 256 weights.
    Q5K,
    /// d·s·(q − 32) with q from 0 to 63, s of 8 bits per 16 weights, d as a half per 256: 210 bytes per 256 weights.
    Q6K,
    /// s·(q − 64) with q from 0 to 128: 66 bytes per 64 weights. int8 activations multiply a copy in this format of weights of 16 and 32
    /// bits. Fewer scales make the product faster, and an eighth bit gains more accuracy in activations than in weights.
    Q7Group64,
}

impl QuantFormat {
    pub const ALL: [Self; 12] = [
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Q7Group64,
    ];

    /// Whether the int8 kernels support the format.
    pub const fn supports_integer_dot(self) -> bool {
        !matches!(self, Self::F16 | Self::Bf16)
    }

    /// Whether it is one of GGUF's formats with superblocks.
    pub const fn is_k_quant(self) -> bool {
        matches!(self, Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K)
    }

    /// Largest magnitude of the activations' codes in an integer product: the sum of two products has to fit into 16 bits,
    /// as AVX2 adds them (255 · 63 · 2, or 128 · 127 · 2), and that of four products of codes of up to six bits (63 · 127 · 4).
    pub const fn max_activation_code(self) -> u8 {
        if matches!(self, Self::Q8_0) { 63 } else { 127 }
    }

    /// Weights of a row that share a scale.
    pub const fn values_per_scale(self) -> usize {
        match self {
            Self::Q2K | Self::Q3K | Self::Q6K => BLOCK_SIZE / 2,
            Self::Q7Group64 => 2 * BLOCK_SIZE,
            _ => BLOCK_SIZE,
        }
    }

    /// Weights of a row in a block of the file layout.
    pub const fn file_block_size(self) -> usize {
        self.blocks_per_superblock() * BLOCK_SIZE
    }

    /// Bytes of a block of the file layout.
    pub const fn file_block_bytes(self) -> usize {
        match self {
            // Sixteen bytes hold as many scales and minima of four bits.
            Self::Q2K => 4 + 16 + 64,
            // Twelve bytes hold sixteen scales of six bits, or eight scales and eight minima.
            Self::Q3K => 2 + 12 + 64 + 32,
            Self::Q4K => 4 + 12 + 128,
            Self::Q5K => 4 + 12 + 128 + 32,
            _ => self.strip_superblock_bytes() / STRIP_COLUMNS,
        }
    }

    /// Bytes of a scale or a minimum of a block.
    pub const fn scale_bytes(self) -> usize {
        match self {
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 1,
            _ => 2,
        }
    }

    /// Number of scales and of minima in a row's block.
    pub const fn scale_counts(self) -> [usize; 2] {
        match self {
            Self::F16 | Self::Bf16 | Self::Q7Group64 => [0, 0],
            Self::Q8_0 | Self::Q4_0 => [1, 0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => [1, 1],
            Self::Q3K | Self::Q6K => [2, 0],
            Self::Q2K => [2, 2],
        }
    }

    /// Number of superblock scales of a row: one for the scales of its blocks, or for its weights where blocks have no scales, and
    /// one for the minima. Each is an IEEE half.
    pub const fn superblock_scale_count(self) -> usize {
        match self {
            Self::Q2K | Self::Q4K | Self::Q5K => 2,
            Self::Q3K | Self::Q6K | Self::Q7Group64 => 1,
            _ => 0,
        }
    }

    /// Blocks that share superblock scales; 1 in formats without superblocks.
    pub const fn blocks_per_superblock(self) -> usize {
        match self {
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 8,
            Self::Q7Group64 => 2,
            _ => 1,
        }
    }

    /// Bytes of a strip's block.
    pub const fn strip_block_bytes(self) -> usize {
        self.scales_bytes() + STRIP_COLUMNS * BLOCK_SIZE * self.code_bits() / 8
    }

    /// Bytes of the scales and minima of a strip's block.
    const fn scales_bytes(self) -> usize {
        let [scales, minima] = self.scale_counts();
        (scales + minima) * self.scale_bytes() * STRIP_COLUMNS
    }

    /// Bytes of the scales of a strip's superblock.
    const fn superblock_scales_bytes(self) -> usize {
        2 * self.superblock_scale_count() * STRIP_COLUMNS
    }

    const fn strip_superblock_bytes(self) -> usize {
        self.superblock_scales_bytes() + self.blocks_per_superblock() * self.strip_block_bytes()
    }

    /// Bytes of a strip with `blocks` blocks.
    pub const fn strip_bytes(self, blocks: usize) -> usize {
        blocks.div_ceil(self.blocks_per_superblock()) * self.strip_superblock_bytes()
    }

    /// Byte offset of a block's superblock in its strip.
    #[inline]
    pub const fn superblock_offset(self, block_index: usize) -> usize {
        (block_index / self.blocks_per_superblock()).wrapping_mul(self.strip_superblock_bytes())
    }

    /// Byte offset of a block in its strip.
    #[inline]
    pub const fn block_offset(self, block_index: usize) -> usize {
        let in_superblock = (block_index % self.blocks_per_superblock()).wrapping_mul(self.strip_block_bytes());
        self.superblock_offset(block_index).wrapping_add(self.superblock_scales_bytes()).wrapping_add(in_superblock)
    }

    /// Byte offset of a column's superblock scale.
    pub const fn superblock_scale_offset(self, column: usize, index: usize) -> usize {
        2 * (index * STRIP_COLUMNS + column)
    }

    /// Byte offset of a column's scale in a strip's block: all scales precede all minima.
    #[inline]
    pub const fn scale_offset(self, column: usize, index: usize) -> usize {
        self.scale_bytes() * (index * STRIP_COLUMNS + column)
    }

    /// Where the bits of code `k` of column 0 lie in a strip's block: the low, and the high ones. Those of the next column are
    /// [`QuantFormat::column_stride_bits`] further.
    pub const fn code_bit_fields(self, k: usize) -> [BitField; 2] {
        let (start, low_bits) = (8 * self.scales_bytes(), self.low_bits());
        let low = match self {
            Self::F16 => BitField { offset: 16 * k * STRIP_COLUMNS, bits: 16 },
            Self::Bf16 => BitField { offset: 32 * (k / 2 * STRIP_COLUMNS) + 16 * (k % 2), bits: 16 },
            _ => BitField { offset: start + bit_plane_offset(k, low_bits), bits: low_bits },
        };
        let high_offset = match self.high_bits() {
            0 => 0,
            bits => start + low_bits * BLOCK_SIZE * STRIP_COLUMNS + bit_plane_offset(k, bits),
        };
        [low, BitField { offset: high_offset, bits: self.high_bits() }]
    }

    /// Bits between the fields of neighbouring columns.
    pub const fn column_stride_bits(self) -> usize {
        match self {
            Self::F16 => 16,
            _ => 32,
        }
    }

    pub const fn code_bits(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Q8_0 | Self::Q7Group64 => 8,
            Self::Q6K => 6,
            Self::Q5_1 | Self::Q5K => 5,
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => 4,
            Self::Q3K => 3,
            Self::Q2K => 2,
        }
    }

    /// Lowest bits of a code, which are stored together.
    pub const fn low_bits(self) -> usize {
        match self.code_bits() {
            5..=6 => 4,
            3 => 2,
            bits => bits,
        }
    }

    /// Highest bits of a code of three, five or six bits, which are stored behind the low bits of all codes.
    pub const fn high_bits(self) -> usize {
        self.code_bits() - self.low_bits()
    }
}

/// Neighbouring bits in a strip's block.
#[derive(Debug, Clone, Copy)]
pub struct BitField {
    pub offset: usize,
    pub bits: usize,
}

/// Bit offset of step `k` of column 0 in a plane, which stores `bits` bits, one to eight, of each code of a block. A word of 32 bits holds
/// neighbouring steps of one column. Four neighbouring steps have the same bits of its four bytes, as the integer kernels read them.
const fn bit_plane_offset(k: usize, bits: usize) -> usize {
    32 * (k / (32 / bits) * STRIP_COLUMNS) + 8 * (k % 4) + bits * (k / 4 % (8 / bits))
}
