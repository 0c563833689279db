//! Sixteen lanes of `f32`, whatever registers the machine has.
//!
//! The number of lanes is the same everywhere, and sums over them are taken in one fixed order, so AVX2 and AVX-512 give
//! the same bits. An operation is written once, as a [`Work`], and compiled for every instruction set; [`Level`] picks
//! the best that the machine has when it runs. Knows nothing of matrices.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod narrow;
mod portable;

pub use narrow::Narrow;

/// Runs `$body` for each register of a row, with the place of its first number and, where it is asked for, how many
/// numbers there are from there on. A plain loop: closures and iterators are not compiled for the instruction set.
macro_rules! pieces {
    ($width:expr, $at:ident, $body:block) => {{
        let mut $at = 0;
        while $at < $width {
            $body;
            $at += $crate::cpu::lanes::LANES;
        }
    }};
    ($width:expr, $at:ident, $count:ident, $body:block) => {
        pieces!($width, $at, {
            let $count = $width - $at;
            $body
        })
    };
}
pub(super) use pieces;

/// The number of lanes.
pub const LANES: usize = 16;

/// Sixteen numbers in registers.
///
/// # Safety
/// Every function may only run on a machine with the instruction set of its implementation, that is, inside [`Level::run`].
/// Pointers must be good for sixteen numbers, or for as many as are asked for; they need no alignment.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Lanes: Narrow {
    /// The rows of a product's tile, and its widths in lanes: as many as the registers hold.
    const TILE_ROWS: usize;
    const TILE_WIDTH: usize;

    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The first `count` lanes, all of them from sixteen on; zero in the others.
    unsafe fn load_some(from: *const f32, count: usize) -> Self;
    /// The first `count` lanes; nothing is written beyond them.
    unsafe fn store_some(self, to: *mut f32, count: usize);
    /// Asks for the cache line there, which need not exist, ahead of its use.
    unsafe fn fetch(from: *const f32);
    unsafe fn splat(value: f32) -> Self;
    /// The number there in all lanes.
    unsafe fn splat_from(from: *const f32) -> Self;

    /// `self · by + plus`, rounded once where the machine can.
    unsafe fn fused(self, by: Self, plus: Self) -> Self;
    unsafe fn plus(self, other: Self) -> Self;
    unsafe fn minus(self, other: Self) -> Self;
    unsafe fn times(self, other: Self) -> Self;
    unsafe fn over(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// To the nearest whole number.
    unsafe fn rounded(self) -> Self;
    /// 2ⁿ of whole numbers from −126 to 127.
    unsafe fn power_of_two(self) -> Self;
    /// Lane by lane: `negative` where `self` is below zero, else `other`.
    unsafe fn where_negative(self, negative: Self, other: Self) -> Self;

    /// Lanes 8 apart are added first, then 4, 2, 1.
    unsafe fn sum(self) -> f32;
    unsafe fn largest(self) -> f32;
}

/// What lanes are loaded from.
pub trait Number: Copy {
    /// Sixteen of them.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's.
        unsafe { L::load(from) }
    }
}

impl Number for i8 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's.
        unsafe { L::signed_bytes(from) }
    }
}

/// Something to be computed with lanes.
pub trait Work {
    type Output;

    /// Must be `#[inline(always)]`, with all that it calls, to be compiled for the instruction set.
    ///
    /// # Safety
    /// As [`Lanes`]: called by [`Level::run`].
    unsafe fn run<L: Lanes>(self) -> Self::Output;
}

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Every machine with AVX2 that was ever built has the other two.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Every machine with DQ has BW, and the other way round.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512dq")
}

impl Level {
    /// The best that this machine has.
    pub fn best() -> Self {
        Self::all().pop().unwrap_or(Self(Set::Portable))
    }

    /// Those that this machine has, the best last.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut, reason = "on other machines there is only one")]
        let mut levels = vec![Self(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                levels.push(Self(Set::Avx2));
                if has_avx512() {
                    levels.push(Self(Set::Avx512));
                }
            }
        }
        levels
    }

    /// Whether it is the one without instructions of its own, whose bits depend on what the compiler makes of it.
    pub fn is_portable(self) -> bool {
        self.0 == Set::Portable
    }

    /// As [`Level::run`], for work with [`Narrow::dots`]: on a machine with AVX-512 but no instructions for them, with AVX2.
    #[inline]
    pub fn run_bytes<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            // SAFETY: a level is only made where the machine has it, and VNNI was asked for.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 if has_vnni() => unsafe { avx512::run_bytes(work) },
            // SAFETY: AVX-512 comes with AVX2.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { avx2::run(work) },
            _ => self.run(work),
        }
    }

    #[inline]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            // SAFETY: needs no instruction set.
            Set::Portable => unsafe { work.run::<portable::Portable>() },
            // SAFETY: a level is only made where the machine has it.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { avx2::run(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { avx512::run(work) },
        }
    }
}

/// With instructions for sums of four products of bytes.
#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// eˣ to about one unit in the last place, for x from −87 to 88; below that 1e−38, which is as good as 0 in a sum with 1.
///
/// 2ⁿ·eʳ with |r| ≤ ln 2 / 2 and the Taylor series of eʳ up to r⁷.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's.
    unsafe {
        let zero = L::splat(0.0);
        let x = zero.minus(L::splat(-88.0).max(zero.minus(x))).max(L::splat(-87.0));
        let whole = x.times(L::splat(std::f32::consts::LOG2_E)).rounded();
        // ln 2 in two parts, the first exact in few bits
        let rest = whole.fused(L::splat(-355.0 / 512.0), x);
        let rest = whole.fused(L::splat(2.121_944_4e-4), rest);
        let sum = L::splat(1.0 / 5040.0).fused(rest, L::splat(1.0 / 720.0));
        let sum = sum.fused(rest, L::splat(1.0 / 120.0)).fused(rest, L::splat(1.0 / 24.0));
        let sum = sum.fused(rest, L::splat(1.0 / 6.0)).fused(rest, L::splat(0.5));
        let sum = sum.fused(rest, L::splat(1.0)).fused(rest, L::splat(1.0));
        sum.times(whole.power_of_two())
    }
}
