//! Numbers of 16, 8 and 4 bits, widened to `f32` sixteen at a time.
//!
//! Codes lie in words of 32 bits, one word to a lane. What comes out is exact, so it is the same on every machine. Knows
//! neither scales nor the order in which weights lie.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// What lanes can be made of.
///
/// # Safety
/// As [`super::Lanes`]: every function may only run inside `Level::run`, and pointers must be good for what is read or
/// written there. They need no alignment.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait SimdConvert: Copy {
    /// Sixteen words, not yet taken apart.
    type U32x16: Copy;

    /// Asks for the cache line there, which need not exist, just ahead of its use.
    unsafe fn prefetch_l1(src: *const u8);
    /// Sixteen words of 32 bits.
    unsafe fn load_u32x16(src: *const u8) -> Self::U32x16;
    /// The lower (0) or upper (1) four bits of every byte, as bytes.
    unsafe fn unpack_nibbles<const INDEX: u32>(words: Self::U32x16) -> Self::U32x16;
    /// The byte from bit 8·`INDEX` on, from 0 to 255.
    unsafe fn u8_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self;
    /// The lower (0) or upper (1) half of each word as a bfloat16.
    unsafe fn bf16_to_f32<const INDEX: u32>(words: Self::U32x16) -> Self;
    /// Sixteen signed bytes.
    unsafe fn load_i8(src: *const i8) -> Self;
    /// Sixteen IEEE halves.
    unsafe fn load_f16(src: *const u8) -> Self;

    /// The same whole number in all words.
    unsafe fn splat_i32(value: i32) -> Self::U32x16;
    /// To each word of `sums` the products of the four bytes of its own, from 0 to 255, with the four signed ones there, from −127
    /// on: exact. Of words that came out of [`Narrow::nibbles`], `BITS` is 4, else 8. Only inside `Level::run_bytes`.
    unsafe fn dot_u8_i8<const BITS: u32>(sums: Self::U32x16, packed: Self::U32x16, lhs: *const i8) -> Self::U32x16;
    /// Whole numbers below 2²⁴ as they are.
    unsafe fn i32_to_f32(words: Self::U32x16) -> Self;
    /// Whole numbers from −127 to 127, as bytes.
    unsafe fn store_i8(self, dst: *mut i8);

    /// Sixteen rows of sixteen numbers become columns; steps are from one row to the next.
    unsafe fn transpose_16x16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize);
}
