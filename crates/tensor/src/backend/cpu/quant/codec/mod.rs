//! Codecs: how a SIMD kernel reads the blocks of each format.

use crate::backend::cpu::simd::{LANES, Simd, SimdConvert};
use crate::quant::QuantFormat;

mod k_quants;

pub use k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K, SpanScales};

/// A block of a strip, and the superblock that it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct BlockPtr {
    superblock: *const u8,
    block: *const u8,
}

impl BlockPtr {
    /// The block with this index in a strip.
    #[inline(always)]
    pub fn new(format: QuantFormat, strip: *const u8, index: usize) -> Self {
        Self {
            superblock: strip.wrapping_add(format.superblock_offset(index)),
            block: strip.wrapping_add(format.block_offset(index)),
        }
    }

    /// The address of the block itself, which the scales of its superblock precede.
    #[inline(always)]
    pub fn address(self) -> *const u8 {
        self.block
    }

    /// The block `bytes` bytes further on.
    #[inline(always)]
    pub fn wrapping_add(self, bytes: usize) -> Self {
        Self { superblock: self.superblock.wrapping_add(bytes), block: self.block.wrapping_add(bytes) }
    }
}

/// [`QuantFormat`] as a type, for kernels that are compiled per format.
///
/// # Safety
/// The CPU supports the instructions of `L`, and `block` is a whole block of a strip.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait QuantCodec: Copy {
    const FORMAT: QuantFormat;
    /// Steps of k in one load.
    const VALUES_PER_LOAD: usize;
    /// Scales of a panel's block.
    type Scales<L: Simd>: Copy;
    /// Packed codes of one load.
    type Packed<L: Simd>: Copy;

    unsafe fn load_scales<L: Simd>(block: BlockPtr, panel: usize) -> Self::Scales<L>;
    unsafe fn load_packed<L: Simd>(block: BlockPtr, panel: usize, group: usize) -> Self::Packed<L>;
    /// Dequantizes the panel's weights at one step of the load.
    unsafe fn dequantize<L: Simd, const STEP: u32>(packed: Self::Packed<L>, scales: Self::Scales<L>) -> L;
}

#[derive(Clone, Copy)]
pub struct F16;
#[derive(Clone, Copy)]
pub struct Bf16;
#[derive(Clone, Copy)]
pub struct Q8_0;
#[derive(Clone, Copy)]
pub struct Q4_0;
#[derive(Clone, Copy)]
pub struct Q4_1;
#[derive(Clone, Copy)]
pub struct Q5_1;
#[derive(Clone, Copy)]
pub struct Q7Group64;

/// Bytes of sixteen 16-bit and 32-bit values.
const F16_VECTOR_BYTES: usize = 2 * LANES;
const U32_VECTOR_BYTES: usize = 4 * LANES;

impl QuantCodec for F16 {
    const FORMAT: QuantFormat = QuantFormat::F16;
    const VALUES_PER_LOAD: usize = 1;
    type Scales<L: Simd> = ();
    type Packed<L: Simd> = L;

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(_: BlockPtr, _: usize) {}

    #[inline(always)]
    unsafe fn load_packed<L: Simd>(block: BlockPtr, panel: usize, group: usize) -> L {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe {
            L::load_f16(
                block.block.wrapping_add(group.wrapping_mul(2).wrapping_add(panel).wrapping_mul(F16_VECTOR_BYTES)),
            )
        }
    }

    #[inline(always)]
    unsafe fn dequantize<L: Simd, const STEP: u32>(packed: L, (): ()) -> L {
        packed
    }
}

/// Offset of a panel's packed words, after `SCALE_LINES` lines of scales per panel.
#[inline(always)]
fn packed_offset<const SCALE_LINES: usize>(panel: usize, group: usize) -> usize {
    group
        .wrapping_mul(2)
        .wrapping_add(panel)
        .wrapping_mul(U32_VECTOR_BYTES)
        .wrapping_add(SCALE_LINES * 2 * F16_VECTOR_BYTES)
}

impl QuantCodec for Bf16 {
    const FORMAT: QuantFormat = QuantFormat::Bf16;
    const VALUES_PER_LOAD: usize = 2;
    type Scales<L: Simd> = ();
    type Packed<L: Simd> = L::U32x16;

    #[inline(always)]
    unsafe fn load_packed<L: Simd>(block: BlockPtr, panel: usize, group: usize) -> L::U32x16 {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { L::load_u32x16(block.block.wrapping_add(packed_offset::<0>(panel, group))) }
    }

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(_: BlockPtr, _: usize) {}

    #[inline(always)]
    unsafe fn dequantize<L: Simd, const STEP: u32>(packed: L::U32x16, (): ()) -> L {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { L::bf16_to_f32::<STEP>(packed) }
    }
}

/// Codec of formats with codes of a byte and one scale: the weight is s·code + offset, which is exact in so few bits.
macro_rules! impl_byte_codec {
    ($codec:ident, scale_lines $scale_lines:literal, |$block:ident| $scales:expr, zero_point $zero_point:literal) => {
        impl QuantCodec for $codec {
            const FORMAT: QuantFormat = QuantFormat::$codec;
            const VALUES_PER_LOAD: usize = 4;
            /// Scale, and the value of code 0.
            type Scales<L: Simd> = (L, L);
            type Packed<L: Simd> = L::U32x16;

            #[inline(always)]
            unsafe fn load_scales<L: Simd>($block: BlockPtr, panel: usize) -> (L, L) {
                // SAFETY: the scales start at this address; the CPU supports the instructions of `L`.
                unsafe {
                    let scale = L::load_f16($scales.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES)));
                    (scale, scale.mul(L::splat(-$zero_point)))
                }
            }

            #[inline(always)]
            unsafe fn load_packed<L: Simd>(block: BlockPtr, panel: usize, group: usize) -> L::U32x16 {
                // SAFETY: the block holds the codes at this offset; the CPU supports the instructions of `L`.
                unsafe { L::load_u32x16(block.block.wrapping_add(packed_offset::<$scale_lines>(panel, group))) }
            }

            #[inline(always)]
            unsafe fn dequantize<L: Simd, const STEP: u32>(packed: L::U32x16, (scale, offset): (L, L)) -> L {
                // SAFETY: only register operations; the CPU supports the instructions of `L`.
                unsafe { L::u8_to_f32::<STEP>(packed).mul_add(scale, offset) }
            }
        }
    };
}

impl_byte_codec!(Q8_0, scale_lines 1, |block| block.block, zero_point 128.0);
// Its blocks have no scales between them, so the codes of a superblock are loaded as those of one block.
impl_byte_codec!(Q7Group64, scale_lines 0, |block| block.superblock, zero_point 64.0);

/// Packed codes of eight steps: the bytes of both vectors are those of the first and of the last four.
pub type CodePair<L> = (<L as SimdConvert>::U32x16, <L as SimdConvert>::U32x16);

/// Loads the codes of two to six bits of eight steps, in the layout of [`QuantFormat::code_bit_fields`].
///
/// # Safety
/// As for [`QuantCodec`].
#[inline(always)]
unsafe fn load_code_pair<L: Simd, F: QuantCodec, const SCALE_LINES: usize>(
    block: BlockPtr,
    panel: usize,
    group: usize,
) -> CodePair<L> {
    // SAFETY: `block` is a whole block, which holds the codes at these offsets, and the CPU supports the instructions of `L`.
    unsafe {
        let (low_bits, high_bits) = const { (F::FORMAT.low_bits(), F::FORMAT.high_bits()) };
        // Words of 32 / bits steps hold 4 / bits groups.
        let load_word = |word| L::load_u32x16(block.block.wrapping_add(packed_offset::<SCALE_LINES>(panel, word)));
        let low = if low_bits == 4 {
            let packed = load_word(group);
            (L::unpack_nibbles::<0>(packed), L::unpack_nibbles::<1>(packed))
        } else {
            let (packed, zeros, shift) = (load_word(group / 2), L::splat_i32(0), (group % 2 * 4) as u32);
            let unpack_pairs = |shift| L::insert_bits::<0>(zeros, packed, shift, 0x0303_0303);
            (unpack_pairs(shift), unpack_pairs(shift.wrapping_add(2)))
        };
        if high_bits == 0 {
            return low;
        }
        let groups_per_word = 4 / high_bits;
        // The high bits follow the low bits of all groups.
        let high = load_word(low_bits.wrapping_add(group / groups_per_word));
        let shift = (group % groups_per_word * 2 * high_bits) as u32;
        let next_shift = shift.wrapping_add(high_bits as u32);
        let mask = (0x0101_0101 << high_bits) - 0x0101_0101;
        if low_bits == 4 {
            (L::insert_bits::<4>(low.0, high, shift, mask), L::insert_bits::<4>(low.1, high, next_shift, mask))
        } else {
            (L::insert_bits::<2>(low.0, high, shift, mask), L::insert_bits::<2>(low.1, high, next_shift, mask))
        }
    }
}

/// Dequantizes the codes of a step: code · scale + offset.
///
/// # Safety
/// As for [`QuantCodec`].
#[inline(always)]
unsafe fn dequantize_code_pair<L: Simd, const STEP: u32>(codes: CodePair<L>, scale: L, offset: L) -> L {
    // SAFETY: only register operations; the CPU supports the instructions of `L`.
    unsafe {
        let value = match STEP {
            0 => L::u8_to_f32::<0>(codes.0),
            1 => L::u8_to_f32::<1>(codes.0),
            2 => L::u8_to_f32::<2>(codes.0),
            3 => L::u8_to_f32::<3>(codes.0),
            4 => L::u8_to_f32::<0>(codes.1),
            5 => L::u8_to_f32::<1>(codes.1),
            6 => L::u8_to_f32::<2>(codes.1),
            _ => L::u8_to_f32::<3>(codes.1),
        };
        value.mul_add(scale, offset)
    }
}

/// Codec of formats with codes of four or five bits and one scale per block.
macro_rules! impl_code_pair_codec {
    ($codec:ident, $scale_lines:literal, $load_scales:ident) => {
        impl QuantCodec for $codec {
            const FORMAT: QuantFormat = QuantFormat::$codec;
            const VALUES_PER_LOAD: usize = 8;
            /// Scale, and the value of code 0.
            type Scales<L: Simd> = (L, L);
            type Packed<L: Simd> = CodePair<L>;

            #[inline(always)]
            unsafe fn load_scales<L: Simd>(block: BlockPtr, panel: usize) -> (L, L) {
                // SAFETY: the same contract.
                unsafe { $load_scales(block, panel) }
            }

            #[inline(always)]
            unsafe fn load_packed<L: Simd>(block: BlockPtr, panel: usize, group: usize) -> CodePair<L> {
                // SAFETY: the same contract.
                unsafe { load_code_pair::<L, Self, $scale_lines>(block, panel, group) }
            }

            #[inline(always)]
            unsafe fn dequantize<L: Simd, const STEP: u32>(packed: CodePair<L>, (scale, offset): (L, L)) -> L {
                // SAFETY: the same contract.
                unsafe { dequantize_code_pair::<L, STEP>(packed, scale, offset) }
            }
        }
    };
}

use impl_code_pair_codec;

impl_code_pair_codec!(Q4_0, 1, load_centered_scales);
impl_code_pair_codec!(Q4_1, 2, load_scales_and_minima);
impl_code_pair_codec!(Q5_1, 2, load_scales_and_minima);

/// Loads halves s, and returns s and −8·s.
///
/// # Safety
/// As for [`QuantCodec`].
#[inline(always)]
unsafe fn load_centered_scales<L: Simd>(block: BlockPtr, panel: usize) -> (L, L) {
    // SAFETY: the block starts with the scales; the CPU supports the instructions of `L`.
    unsafe {
        let scale = L::load_f16(block.block.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES)));
        (scale, scale.mul(L::splat(-8.0)))
    }
}

/// Loads scales and minima, as halves.
///
/// # Safety
/// As for [`QuantCodec`].
#[inline(always)]
unsafe fn load_scales_and_minima<L: Simd>(block: BlockPtr, panel: usize) -> (L, L) {
    let address = block.block.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES));
    // SAFETY: the block starts with the scales and the minima; the CPU supports the instructions of `L`.
    unsafe { (L::load_f16(address), L::load_f16(address.wrapping_add(2 * F16_VECTOR_BYTES))) }
}
