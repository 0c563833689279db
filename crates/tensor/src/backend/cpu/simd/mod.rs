//! SIMD vectors of sixteen `f32` lanes on every instruction set.
//!
//! The number of lanes and the order of reductions are the same everywhere, so AVX2 and AVX-512 give the same bits. A
//! kernel is written once, as a [`SimdKernel`], and compiled for every instruction set; [`Isa`] selects the best one at
//! run time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod convert;
mod portable;

pub use convert::SimdConvert;

/// Runs `$body` for each vector of a row, with the index of its first value and optionally the number of values from
/// there on. It is a plain loop because closures and iterators are not compiled for the instruction set.
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

/// Number of lanes.
pub const LANES: usize = 16;

/// Vector of sixteen values.
///
/// # Safety
/// Every function requires a CPU with the instruction set of its implementation, that is, a call from [`Isa::run`].
/// Pointers must be valid for sixteen values, or for `count`; they need no alignment.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait Simd: SimdConvert {
    /// Rows and panels of a GEMM tile: as many as fit into the registers.
    const TILE_ROWS: usize;
    const TILE_PANELS: usize;
    /// Rows of a tile of two panels in products with int8 activations, at most six: with more, sums would be stored after each span.
    const INT8_TILE_ROWS: usize;

    unsafe fn load(src: *const f32) -> Self;
    unsafe fn store(self, dst: *mut f32);
    /// Loads the first `count` lanes, at most sixteen; the others are zero.
    unsafe fn load_partial(src: *const f32, count: usize) -> Self;
    /// Stores the first `count` lanes, at most sixteen.
    unsafe fn store_partial(self, dst: *mut f32, count: usize);
    /// Prefetches the cache line into the second-level cache; any address is allowed.
    unsafe fn prefetch_l2(src: *const f32);
    unsafe fn splat(value: f32) -> Self;
    /// Broadcasts the value at `src`.
    unsafe fn load_splat(src: *const f32) -> Self;

    /// self · factor + addend, rounded once if the CPU has fused multiply-add.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// Rounds to the nearest integer, ties to even.
    unsafe fn round_ties_even(self) -> Self;
    /// 2ⁿ for integers from −126 to 127.
    unsafe fn exp2_integer(self) -> Self;
    /// Per lane: `if_negative` if `self` is below zero, else `other`.
    unsafe fn select_negative(self, if_negative: Self, other: Self) -> Self;

    /// Adds lanes 8 apart first, then 4, 2, 1.
    unsafe fn reduce_sum(self) -> f32;
    unsafe fn reduce_max(self) -> f32;

    /// The sum of the lanes of each vector. The order of the additions differs from [`Simd::reduce_sum`].
    unsafe fn reduce_sums(vectors: [Self; 4]) -> [f32; 4];
    /// The maximum of each vector.
    unsafe fn reduce_maxima(vectors: [Self; 4]) -> [f32; 4];
}

/// Element type that vectors are loaded from.
pub trait SimdElement: Copy {
    /// Loads sixteen values as `f32`.
    ///
    /// # Safety
    /// `src` is readable for sixteen elements, and the CPU supports the instructions of `L`.
    unsafe fn load<L: Simd>(src: *const Self) -> L;
}

impl SimdElement for f32 {
    #[inline(always)]
    unsafe fn load<L: Simd>(src: *const Self) -> L {
        // SAFETY: the trait's contract gives `src` sixteen readable elements on a CPU that supports `L`.
        unsafe { L::load(src) }
    }
}

impl SimdElement for i8 {
    #[inline(always)]
    unsafe fn load<L: Simd>(src: *const Self) -> L {
        // SAFETY: the trait's contract gives `src` sixteen readable bytes on a CPU that supports `L`.
        unsafe { L::load_i8(src) }
    }
}

/// Computation that is compiled for every instruction set.
pub trait SimdKernel {
    type Output;

    /// Runs the kernel. It and all functions that it calls must be `#[inline(always)]` to be compiled for the
    /// instruction set.
    ///
    /// # Safety
    /// The CPU supports the instructions of `L`; only [`Isa::run`] calls this.
    unsafe fn run<L: Simd>(self) -> Self::Output;
}

/// Instruction set that this CPU supports.
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

/// Every CPU with AVX2 has FMA and F16C, too.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// CPUs have both BW and DQ or neither.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512dq")
}

impl Isa {
    /// Returns the best instruction set of this CPU.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self(IsaKind::Portable))
    }

    /// Returns the instruction sets of this CPU, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have the portable implementation only")]
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

    /// Whether this is the portable implementation, whose bits depend on the compiler.
    pub fn is_portable(self) -> bool {
        self.0 == IsaKind::Portable
    }

    /// Runs a kernel that calls [`SimdConvert::dot_u8_i8`]: with AVX-512 only if the CPU has VNNI, else with AVX2.
    #[inline]
    pub fn run_int8_dot<W: SimdKernel>(self, kernel: W) -> W::Output {
        match self.0 {
            // SAFETY: `available` constructs `Avx512` only on CPUs that support it, and `has_vnni` has checked VNNI.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 if has_vnni() => unsafe { avx512::run_int8_dot(kernel) },
            // SAFETY: every CPU with AVX-512 has AVX2, FMA and F16C.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => unsafe { avx2::run(kernel) },
            _ => self.run(kernel),
        }
    }

    #[inline]
    pub fn run<W: SimdKernel>(self, kernel: W) -> W::Output {
        match self.0 {
            // SAFETY: the portable implementation uses no special instructions.
            IsaKind::Portable => unsafe { kernel.run::<portable::Portable>() },
            // SAFETY: `available` constructs `Avx2` only on CPUs that support it.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => unsafe { avx2::run(kernel) },
            // SAFETY: `available` constructs `Avx512` only on CPUs that support it.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => unsafe { avx512::run(kernel) },
        }
    }
}

/// Whether the CPU has dot products of four bytes (VNNI).
#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// eˣ to about one unit in the last place, for x from −87 to 88; below that 1e−38, negligible in a sum with 1.
///
/// Computes 2ⁿ·eʳ with |r| ≤ ln 2 / 2 and the Taylor series of eʳ up to r⁷.
///
/// # Safety
/// The CPU supports the instructions of `L`.
#[inline(always)]
pub unsafe fn exp<L: Simd>(x: L) -> L {
    // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
    unsafe {
        let zero = L::splat(0.0);
        let x = zero.sub(L::splat(-88.0).max(zero.sub(x))).max(L::splat(-87.0));
        let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round_ties_even();
        // ln 2 in two parts, of which the first is exact in few bits.
        let r = n.mul_add(L::splat(-355.0 / 512.0), x);
        let r = n.mul_add(L::splat(2.121_944_4e-4), r);
        let series = L::splat(1.0 / 5040.0).mul_add(r, L::splat(1.0 / 720.0));
        let series = series.mul_add(r, L::splat(1.0 / 120.0)).mul_add(r, L::splat(1.0 / 24.0));
        let series = series.mul_add(r, L::splat(1.0 / 6.0)).mul_add(r, L::splat(0.5));
        let series = series.mul_add(r, L::splat(1.0)).mul_add(r, L::splat(1.0));
        series.mul(n.exp2_integer())
    }
}
