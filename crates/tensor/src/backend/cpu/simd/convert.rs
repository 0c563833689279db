//! Conversion of 16-, 8- and 4-bit values to `f32`, sixteen at a time.
//!
//! Codes are packed in 32-bit words, one word per lane. Conversions are exact, so they are the same on every
//! instruction set.

/// Conversions to and from a vector.
///
/// # Safety
/// As for [`super::Simd`]: the CPU supports the instruction set of the implementation, and pointers are valid for what
/// is read or written there. They need no alignment.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait SimdConvert: Copy {
    /// Sixteen packed 32-bit words.
    type U32x16: Copy;

    /// Prefetches the cache line into the first-level cache; any address is allowed.
    unsafe fn prefetch_l1(src: *const u8);
    /// Loads sixteen words.
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16;
    /// Extracts the lower (0) or upper (1) nibble of every byte.
    unsafe fn unpack_nibbles<const INDEX: u32>(words: Self::U32x16) -> Self::U32x16;
    /// Sets the bits of every byte of `low` from bit `AT` on, which are 0, to bits of the same byte of `high`, which is shifted right
    /// by `shift` bits and masked. `mask` has the same bits in each byte, which neither shift moves to another byte.
    unsafe fn insert_bits<const AT: u32>(low: Self::U32x16, high: Self::U32x16, shift: u32, mask: u32) -> Self::U32x16;
    /// Converts the byte that starts at bit 8·`INDEX`.
    unsafe fn u8_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self;
    /// Converts the lower (0) or upper (1) half of each word from bfloat16.
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self;
    /// Loads sixteen signed bytes.
    unsafe fn load_i8(src: *const i8) -> Self;
    /// Loads sixteen unsigned bytes.
    unsafe fn load_u8(src: *const u8) -> Self;
    /// Loads sixteen IEEE halves.
    unsafe fn load_f16(src: *const u8) -> Self;

    /// Broadcasts an integer.
    unsafe fn splat_i32(value: i32) -> Self::U32x16;
    /// Adds to each word of `sums` the products of its four unsigned bytes with the four signed bytes at `lhs`. The sum of
    /// two neighbouring products must fit into 16 bits, as AVX2 adds them. Requires a call from `Isa::run_int8_dot`.
    unsafe fn dot_u8_i8(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16;
    /// The same with two vectors and the eight bytes at `lhs`. The unsigned bytes have at most six bits, so that AVX2
    /// adds four products in 16 bits.
    #[inline(always)]
    unsafe fn dot_u6_i8_pair(sums: Self::U32x16, packed: (Self::U32x16, Self::U32x16), lhs: *const i8) -> Self::U32x16 {
        // SAFETY: the same contract, for both halves of the eight bytes.
        unsafe { Self::dot_u8_i8(Self::dot_u8_i8(sums, packed.0, lhs), packed.1, lhs.wrapping_add(4)) }
    }
    /// Converts integers below 2²⁴.
    unsafe fn i32_to_f32(words: Self::U32x16) -> Self;
    /// Stores integers from −127 to 127 as bytes.
    unsafe fn store_i8(self, dst: *mut i8);

    /// Transposes 16×16 values; strides are distances between rows.
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize);
}
