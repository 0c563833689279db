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
pub trait Narrow: Copy {
    /// Sixteen words, not yet taken apart.
    type Words: Copy;

    /// Asks for the cache line there, which need not exist, just ahead of its use.
    unsafe fn fetch_close(from: *const u8);
    /// Sixteen words of 32 bits.
    unsafe fn words(from: *const u8) -> Self::Words;
    /// The lower (0) or upper (1) four bits of every byte, as bytes.
    unsafe fn nibbles<const INDEX: u32>(words: Self::Words) -> Self::Words;
    /// The byte from bit 8·`INDEX` on, from 0 to 255.
    unsafe fn byte<const INDEX: u32>(words: Self::Words) -> Self;
    /// The lower (0) or upper (1) half of each word as a bfloat16.
    unsafe fn brain<const INDEX: u32>(words: Self::Words) -> Self;
    /// Sixteen signed bytes.
    unsafe fn signed_bytes(from: *const i8) -> Self;
    /// Sixteen IEEE halves.
    unsafe fn halves(from: *const u8) -> Self;

    /// The same whole number in all words.
    unsafe fn whole(number: i32) -> Self::Words;
    /// To each word of `sums` the products of the four bytes of its own, from 0 to 255, with the four signed ones there, from −127
    /// on: exact. Of words that came out of [`Narrow::nibbles`], `BITS` is 4, else 8. Only inside `Level::run_bytes`.
    unsafe fn dots<const BITS: u32>(sums: Self::Words, bytes: Self::Words, left: *const i8) -> Self::Words;
    /// Whole numbers below 2²⁴ as they are.
    unsafe fn numbers(words: Self::Words) -> Self;
    /// Whole numbers from −127 to 127, as bytes.
    unsafe fn store_bytes(self, to: *mut i8);

    /// Sixteen rows of sixteen numbers become columns; steps are from one row to the next.
    unsafe fn turn(from: *const f32, from_step: usize, to: *mut f32, to_step: usize);
}
