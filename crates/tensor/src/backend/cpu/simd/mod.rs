//! Sixteen lanes of `f32`, whatever registers the machine has.
//!
//! The number of lanes is the same everywhere, and sums over them are taken in one fixed order, so AVX2 and AVX-512 give
//! the same bits. An operation is written once, as a [`Work`], and compiled for every instruction set; [`Level`] picks
//! the best that the machine has when it runs. Knows nothing of matrices.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod convert;
mod portable;

pub use convert::SimdConvert;

/// Runs `$body` for each register of a row, with the place of its first number and, where it is asked for, how many
/// numbers there are from there on. A plain loop: closures and iterators are not compiled for the instruction set.
macro_rules! for_each_vector {
    ($width:expr, $at:ident, $body:block) => {{
        let mut $at = 0;
        while $at < $width {
            $body;
            $at += $crate::backend::cpu::simd::LANES;
        }
    }};
    ($width:expr, $at:ident, $count:ident, $body:block) => {
        for_each_vector!($width, $at, {
            let $count = $width - $at;
            $body
        })
    };
}
pub(super) use for_each_vector;

/// The number of lanes.
pub const LANES: usize = 16;

/// Sixteen numbers in registers.
///
/// # Safety
/// Every function may only run on a machine with the instruction set of its implementation, that is, inside [`Level::run`].
/// Pointers must be good for sixteen numbers, or for as many as are asked for; they need no alignment.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Simd: SimdConvert {
    /// The rows of a product's tile, and its widths in lanes: as many as the registers hold.
    const TILE_ROWS: usize;
    const TILE_PANELS: usize;

    unsafe fn load(src: *const f32) -> Self;
    unsafe fn store(self, dst: *mut f32);
    /// The first `count` lanes, all of them from sixteen on; zero in the others.
    unsafe fn load_partial(src: *const f32, count: usize) -> Self;
    /// The first `count` lanes; nothing is written beyond them.
    unsafe fn store_partial(self, dst: *mut f32, count: usize);
    /// Asks for the cache line there, which need not exist, ahead of its use.
    unsafe fn prefetch_l2(src: *const f32);
    unsafe fn splat(value: f32) -> Self;
    /// The number there in all lanes.
    unsafe fn load_splat(src: *const f32) -> Self;

    /// `self · by + plus`, rounded once where the machine can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// To the nearest whole number.
    unsafe fn round_ties_even(self) -> Self;
    /// 2ⁿ of whole numbers from −126 to 127.
    unsafe fn exp2_integer(self) -> Self;
    /// Lane by lane: `negative` where `self` is below zero, else `other`.
    unsafe fn select_negative(self, if_negative: Self, other: Self) -> Self;

    /// Lanes 8 apart are added first, then 4, 2, 1.
    unsafe fn reduce_sum(self) -> f32;
    unsafe fn reduce_max(self) -> f32;
}

/// What lanes are loaded from.
pub trait SimdElement: Copy {
    /// Sixteen of them.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Simd>(src: *const Self) -> L;
}

impl SimdElement for f32 {
    #[inline(always)]
    unsafe fn load<L: Simd>(src: *const Self) -> L {
        // SAFETY: the caller's.
        unsafe { L::load(src) }
    }
}

impl SimdElement for i8 {
    #[inline(always)]
    unsafe fn load<L: Simd>(src: *const Self) -> L {
        // SAFETY: the caller's.
        unsafe { L::load_i8(src) }
    }
}

/// Something to be computed with lanes.
pub trait SimdKernel {
    type Output;

    /// Must be `#[inline(always)]`, with all that it calls, to be compiled for the instruction set.
    ///
    /// # Safety
    /// As [`Lanes`]: called by [`Level::run`].
    unsafe fn run<L: Simd>(self) -> Self::Output;
}

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(IsaKind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsaKind {
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

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self(IsaKind::Portable))
    }

    /// Those that this machine has, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "on other machines there is only one")]
        let mut isas = vec![Self(IsaKind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                isas.push(Self(IsaKind::Avx2));
                if has_avx512() {
                    isas.push(Self(IsaKind::Avx512));
                }
            }
        }
        isas
    }

    /// Whether it is the one without instructions of its own, whose bits depend on what the compiler makes of it.
    pub fn is_portable(self) -> bool {
        self.0 == IsaKind::Portable
    }

    /// As [`Level::run`], for work with [`Narrow::dots`]: on a machine with AVX-512 but no instructions for them, with AVX2.
    #[inline]
    pub fn run_int8_dot<W: SimdKernel>(self, kernel: W) -> W::Output {
        match self.0 {
            // SAFETY: a level is only made where the machine has it, and VNNI was asked for.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 if has_vnni() => unsafe { avx512::run_int8_dot(kernel) },
            // SAFETY: AVX-512 comes with AVX2.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => unsafe { avx2::run(kernel) },
            _ => self.run(kernel),
        }
    }

    #[inline]
    pub fn run<W: SimdKernel>(self, kernel: W) -> W::Output {
        match self.0 {
            // SAFETY: needs no instruction set.
            IsaKind::Portable => unsafe { kernel.run::<portable::Portable>() },
            // SAFETY: a level is only made where the machine has it.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => unsafe { avx2::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => unsafe { avx512::run(kernel) },
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
pub unsafe fn exp<L: Simd>(x: L) -> L {
    // SAFETY: the caller's.
    unsafe {
        let zero = L::splat(0.0);
        let x = zero.sub(L::splat(-88.0).max(zero.sub(x))).max(L::splat(-87.0));
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round_ties_even();
        // ln 2 in two parts, the first exact in few bits
        let r = n.mul_add(L::splat(-355.0 / 512.0), x);
        let r = n.mul_add(L::splat(2.121_944_4e-4), r);
        let series = L::splat(1.0 / 5040.0).mul_add(r, L::splat(1.0 / 720.0));
        let series = series.mul_add(r, L::splat(1.0 / 120.0)).mul_add(r, L::splat(1.0 / 24.0));
        let series = series.mul_add(r, L::splat(1.0 / 6.0)).mul_add(r, L::splat(0.5));
        let series = series.mul_add(r, L::splat(1.0)).mul_add(r, L::splat(1.0));
        series.mul(n.exp2_integer())
    }
}
