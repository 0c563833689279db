//! Codecs: how a SIMD kernel reads the blocks of each format.

use crate::backend::cpu::simd::{LANES, Simd};
use crate::quant::{BLOCK_SIZE, QuantFormat};

/// [`QuantFormat`] as a type, for kernels that are compiled per format.
///
/// # Safety
/// The CPU supports the instructions of `L`, and `block` points to a whole block of a strip.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait QuantCodec: Copy {
    const FORMAT: QuantFormat;
    /// Steps of k in one load.
    const VALUES_PER_LOAD: usize;
    /// Cache lines of scales and minima at the start of a panel's block.
    const SCALE_LINES: usize;
    /// Scales of a panel's block.
    type Scales<L: Simd>: Copy;
    /// Packed codes of one load.
    type Packed<L: Simd>: Copy;

    unsafe fn load_scales<L: Simd>(block: *const u8, panel: usize) -> Self::Scales<L>;
    unsafe fn load_packed<L: Simd>(block: *const u8, panel: usize, group: usize) -> Self::Packed<L>;
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
pub struct AffineQ4;
#[derive(Clone, Copy)]
pub struct AffineQ8;

/// Bytes of sixteen 16-bit and 32-bit values.
const F16_VECTOR_BYTES: usize = 2 * LANES;
const U32_VECTOR_BYTES: usize = 4 * LANES;

impl QuantCodec for F16 {
    const FORMAT: QuantFormat = QuantFormat::F16;
    const SCALE_LINES: usize = 0;
    const VALUES_PER_LOAD: usize = 1;
    type Scales<L: Simd> = ();
    type Packed<L: Simd> = L;

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn load_packed<L: Simd>(block: *const u8, panel: usize, group: usize) -> L {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe {
            L::load_f16(block.wrapping_add(group.wrapping_mul(2).wrapping_add(panel).wrapping_mul(F16_VECTOR_BYTES)))
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
    const SCALE_LINES: usize = 0;
    const VALUES_PER_LOAD: usize = 2;
    type Scales<L: Simd> = ();
    type Packed<L: Simd> = L::U32x16;

    #[inline(always)]
    unsafe fn load_packed<L: Simd>(block: *const u8, panel: usize, group: usize) -> L::U32x16 {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { L::load_u32x16(block.wrapping_add(packed_offset::<0>(panel, group))) }
    }

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn dequantize<L: Simd, const STEP: u32>(packed: L::U32x16, (): ()) -> L {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { L::bf16_to_f32::<STEP>(packed) }
    }
}

impl QuantCodec for Q8_0 {
    const FORMAT: QuantFormat = QuantFormat::Q8_0;
    const SCALE_LINES: usize = 1;
    const VALUES_PER_LOAD: usize = 4;
    /// s and −128·s: the weight is s·(q + 128) − 128·s, which is exact in so few bits.
    type Scales<L: Simd> = (L, L);
    type Packed<L: Simd> = L::U32x16;

    #[inline(always)]
    unsafe fn load_packed<L: Simd>(block: *const u8, panel: usize, group: usize) -> L::U32x16 {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { L::load_u32x16(block.wrapping_add(packed_offset::<1>(panel, group))) }
    }

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(block: *const u8, panel: usize) -> (L, L) {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe {
            let scale = L::load_f16(block.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES)));
            (scale, scale.mul(L::splat(-128.0)))
        }
    }

    #[inline(always)]
    unsafe fn dequantize<L: Simd, const STEP: u32>(packed: L::U32x16, (scale, offset): (L, L)) -> L {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { L::u8_to_f32::<STEP>(packed).mul_add(scale, offset) }
    }
}

/// Loading and dequantization of the 4-bit formats, in the layout of [`QuantFormat::code_bit_offset`].
macro_rules! impl_nibble_codec {
    ($scale_lines:expr) => {
        #[inline(always)]
        unsafe fn load_packed<L: Simd>(block: *const u8, panel: usize, group: usize) -> (L::U32x16, L::U32x16) {
            // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
            // supports the instructions of `L`.
            unsafe {
                let packed = L::load_u32x16(block.wrapping_add(packed_offset::<$scale_lines>(panel, group)));
                (L::unpack_nibbles::<0>(packed), L::unpack_nibbles::<1>(packed))
            }
        }

        #[inline(always)]
        unsafe fn dequantize<L: Simd, const STEP: u32>(packed: (L::U32x16, L::U32x16), (scale, offset): (L, L)) -> L {
            // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
            // supports the instructions of `L`.
            let value = unsafe {
                match STEP {
                    0 => L::u8_to_f32::<0>(packed.0),
                    1 => L::u8_to_f32::<1>(packed.0),
                    2 => L::u8_to_f32::<2>(packed.0),
                    3 => L::u8_to_f32::<3>(packed.0),
                    4 => L::u8_to_f32::<0>(packed.1),
                    5 => L::u8_to_f32::<1>(packed.1),
                    6 => L::u8_to_f32::<2>(packed.1),
                    _ => L::u8_to_f32::<3>(packed.1),
                }
            };
            // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
            unsafe { value.mul_add(scale, offset) }
        }
    };
}

impl QuantCodec for Q4_0 {
    const FORMAT: QuantFormat = QuantFormat::Q4_0;
    const SCALE_LINES: usize = 1;
    const VALUES_PER_LOAD: usize = 8;
    /// s and −8·s.
    type Scales<L: Simd> = (L, L);
    type Packed<L: Simd> = (L::U32x16, L::U32x16);

    impl_nibble_codec!(1);

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(block: *const u8, panel: usize) -> (L, L) {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe {
            let scale = L::load_f16(block.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES)));
            (scale, scale.mul(L::splat(-8.0)))
        }
    }
}

impl QuantCodec for Q4_1 {
    const FORMAT: QuantFormat = QuantFormat::Q4_1;
    const SCALE_LINES: usize = 2;
    const VALUES_PER_LOAD: usize = 8;
    /// Scale s and minimum m.
    type Scales<L: Simd> = (L, L);
    type Packed<L: Simd> = (L::U32x16, L::U32x16);

    impl_nibble_codec!(2);

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(block: *const u8, panel: usize) -> (L, L) {
        let address = block.wrapping_add(panel.wrapping_mul(F16_VECTOR_BYTES));
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { (L::load_f16(address), L::load_f16(address.wrapping_add(2 * F16_VECTOR_BYTES))) }
    }
}

impl QuantCodec for AffineQ4 {
    const FORMAT: QuantFormat = QuantFormat::AffineQ4;
    const SCALE_LINES: usize = 4;
    const VALUES_PER_LOAD: usize = 8;
    /// Scale s and minimum m.
    type Scales<L: Simd> = (L, L);
    type Packed<L: Simd> = (L::U32x16, L::U32x16);

    impl_nibble_codec!(4);

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(block: *const u8, panel: usize) -> (L, L) {
        let address = block.wrapping_add(panel.wrapping_mul(U32_VECTOR_BYTES));
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { (L::load(address.cast()), L::load(address.wrapping_add(2 * U32_VECTOR_BYTES).cast())) }
    }
}

impl QuantCodec for AffineQ8 {
    const FORMAT: QuantFormat = QuantFormat::AffineQ8;
    const SCALE_LINES: usize = 8;
    const VALUES_PER_LOAD: usize = 4;
    type Scales<L: Simd> = ();
    /// Codes, s and m: each half of a block has its own scale and minimum.
    type Packed<L: Simd> = (L::U32x16, L, L);

    #[inline(always)]
    unsafe fn load_scales<L: Simd>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn load_packed<L: Simd>(block: *const u8, panel: usize, group: usize) -> (L::U32x16, L, L) {
        let half_index = group / (BLOCK_SIZE / 2 / Self::VALUES_PER_LOAD);
        let scale_address =
            block.wrapping_add(half_index.wrapping_mul(2).wrapping_add(panel).wrapping_mul(U32_VECTOR_BYTES));
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe {
            let codes = L::load_u32x16(block.wrapping_add(packed_offset::<8>(panel, group)));
            (codes, L::load(scale_address.cast()), L::load(scale_address.wrapping_add(4 * U32_VECTOR_BYTES).cast()))
        }
    }

    #[inline(always)]
    unsafe fn dequantize<L: Simd, const STEP: u32>((codes, scale, offset): (L::U32x16, L, L), (): ()) -> L {
        // SAFETY: `block` points to a whole block, which holds the scales and codes at these offsets, and the CPU
        // supports the instructions of `L`.
        unsafe { L::u8_to_f32::<STEP>(codes).mul_add(scale, offset) }
    }
}

/// Format whose codes are bytes or nibbles that multiply as integers.
///
/// # Safety
/// As for [`QuantCodec`], but called from `Isa::run_int8_dot`.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait IntegerDot: QuantCodec {
    /// Whether a block has a minimum that is added to every value. Without one, a value is its code minus the zero point.
    const HAS_MINIMUM: bool;
    /// Binary logarithm of the zero point.
    const ZERO_POINT_BITS: u32;

    /// Adds to each lane of `sums` the products of its codes with the bytes at `lhs`, one per step of the load.
    unsafe fn dot_packed<L: Simd>(sums: L::U32x16, packed: Self::Packed<L>, lhs: *const i8) -> L::U32x16;
    /// Factor of the sums, and the minimum if the format has one.
    unsafe fn scale_and_minimum<L: Simd>(scales: Self::Scales<L>) -> (L, L);
}

impl IntegerDot for Q8_0 {
    const HAS_MINIMUM: bool = false;
    const ZERO_POINT_BITS: u32 = 7;

    #[inline(always)]
    unsafe fn dot_packed<L: Simd>(sums: L::U32x16, packed: L::U32x16, lhs: *const i8) -> L::U32x16 {
        // SAFETY: the trait requires `lhs` to be readable for every step of the load, and a call from `run_int8_dot`.
        unsafe { L::dot_u8_i8(sums, packed, lhs) }
    }

    #[inline(always)]
    unsafe fn scale_and_minimum<L: Simd>(scales: (L, L)) -> (L, L) {
        scales
    }
}

macro_rules! impl_integer_dot_for_nibbles {
    ($($format:ty, has_minimum: $has_minimum:literal;)+) => {$(
        impl IntegerDot for $format {
            const HAS_MINIMUM: bool = $has_minimum;
            const ZERO_POINT_BITS: u32 = 3;

            #[inline(always)]
            unsafe fn dot_packed<L: Simd>(sums: L::U32x16, packed: (L::U32x16, L::U32x16), lhs: *const i8) -> L::U32x16 {
                // SAFETY: the trait requires `lhs` to be readable for every step of the load, and a call from
                // `run_int8_dot`.
                unsafe { L::dot_u8_i8(L::dot_u8_i8(sums, packed.0, lhs), packed.1, lhs.wrapping_add(4)) }
            }

            #[inline(always)]
            unsafe fn scale_and_minimum<L: Simd>(scales: (L, L)) -> (L, L) {
                scales
            }
        }
    )+};
}

impl_integer_dot_for_nibbles! {
    Q4_0, has_minimum: false;
    Q4_1, has_minimum: true;
    AffineQ4, has_minimum: true;
}
