//! Register tiles of the GEMM kernels: some rows by some panels of accumulators.
//!
//! A tile is a nested type, [`PanelPair`]s of panels and [`StackedTile`]s of rows, not an array: without indexing the
//! compiler keeps it in registers at every optimisation level.

use super::simd::{LANES, Simd, SimdElement};

/// Vectors of adjacent panels in one row.
///
/// # Safety
/// The CPU supports the instructions of `L`. Full loads read sixteen values per panel, panels `stride` elements apart;
/// partial loads and stores touch the first `count` values only, with panels adjacent.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait PanelVec<L: Simd>: Copy {
    const COUNT: usize;

    unsafe fn zero() -> Self;
    unsafe fn load<N: SimdElement>(src: *const N, stride: usize) -> Self;
    /// Prefetches what [`PanelVec::load`] reads.
    unsafe fn prefetch<N: SimdElement>(src: *const N, stride: usize);
    /// Loads `count` values of adjacent panels; the rest is 0.
    unsafe fn load_partial(src: *const f32, count: usize) -> Self;
    unsafe fn store_partial(self, dst: *mut f32, count: usize);
    /// self + value · panels
    unsafe fn mul_acc(self, value: L, panels: Self) -> Self;
}

/// One panel of sixteen columns: one vector.
#[derive(Clone, Copy)]
pub struct SinglePanel<L>(pub L);

impl<L: Simd> PanelVec<L> for SinglePanel<L> {
    const COUNT: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        Self(unsafe { L::splat(0.0) })
    }

    #[inline(always)]
    unsafe fn load<N: SimdElement>(src: *const N, _: usize) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        Self(unsafe { N::load(src) })
    }

    #[inline(always)]
    unsafe fn prefetch<N: SimdElement>(src: *const N, _: usize) {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { L::prefetch_l2(src.cast()) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        Self(unsafe { L::load_partial(src, count) })
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { self.0.store_partial(dst, count) }
    }

    #[inline(always)]
    unsafe fn mul_acc(self, value: L, panels: Self) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        Self(unsafe { value.mul_add(panels.0, self.0) })
    }
}

/// Two neighbouring groups of panels.
#[derive(Clone, Copy)]
pub struct PanelPair<P>(pub P, pub P);

impl<L: Simd, P: PanelVec<L>> PanelVec<L> for PanelPair<P> {
    const COUNT: usize = 2 * P::COUNT;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { Self(P::zero(), P::zero()) }
    }

    #[inline(always)]
    unsafe fn load<N: SimdElement>(src: *const N, stride: usize) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { Self(P::load(src, stride), P::load(src.wrapping_add(P::COUNT.wrapping_mul(stride)), stride)) }
    }

    #[inline(always)]
    unsafe fn prefetch<N: SimdElement>(src: *const N, stride: usize) {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe {
            P::prefetch(src, stride);
            P::prefetch(src.wrapping_add(P::COUNT.wrapping_mul(stride)), stride);
        }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, count: usize) -> Self {
        let half_len = P::COUNT * LANES;
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe {
            Self(
                P::load_partial(src, count),
                P::load_partial(src.wrapping_add(half_len), count.saturating_sub(half_len)),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, count: usize) {
        let half_len = P::COUNT * LANES;
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe {
            self.0.store_partial(dst, count);
            self.1.store_partial(dst.wrapping_add(half_len), count.saturating_sub(half_len));
        }
    }

    #[inline(always)]
    unsafe fn mul_acc(self, value: L, panels: Self) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { Self(self.0.mul_acc(value, panels.0), self.1.mul_acc(value, panels.1)) }
    }
}

/// Rows of panel vectors.
///
/// # Safety
/// As for the vectors of each row, rows `stride` elements apart.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait MicroTile<L: Simd, P: PanelVec<L>>: Copy {
    const ROWS: usize;

    unsafe fn splat_row(panels: P) -> Self;
    unsafe fn load_partial(src: *const f32, stride: usize, count: usize) -> Self;
    unsafe fn store_partial(self, dst: *mut f32, stride: usize, count: usize);
    /// Each row plus its left-hand value times the panels.
    unsafe fn mul_acc(self, lhs: *const f32, stride: usize, panels: P) -> Self;
}

/// Accumulators of one row.
#[derive(Clone, Copy)]
pub struct RowTile<P>(P);

impl<L: Simd, P: PanelVec<L>> MicroTile<L, P> for RowTile<P> {
    const ROWS: usize = 1;

    #[inline(always)]
    unsafe fn splat_row(panels: P) -> Self {
        Self(panels)
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, _: usize, count: usize) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        Self(unsafe { P::load_partial(src, count) })
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, _: usize, count: usize) {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { self.0.store_partial(dst, count) }
    }

    #[inline(always)]
    unsafe fn mul_acc(self, lhs: *const f32, _: usize, panels: P) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        Self(unsafe { self.0.mul_acc(L::load_splat(lhs), panels) })
    }
}

/// Accumulators of the rows of two tiles.
#[derive(Clone, Copy)]
pub struct StackedTile<A, B>(A, B);

impl<L: Simd, P: PanelVec<L>, A: MicroTile<L, P>, B: MicroTile<L, P>> MicroTile<L, P> for StackedTile<A, B> {
    const ROWS: usize = A::ROWS + B::ROWS;

    #[inline(always)]
    unsafe fn splat_row(panels: P) -> Self {
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { Self(A::splat_row(panels), B::splat_row(panels)) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, stride: usize, count: usize) -> Self {
        let below = src.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { Self(A::load_partial(src, stride, count), B::load_partial(below, stride, count)) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, stride: usize, count: usize) {
        let below = dst.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe {
            self.0.store_partial(dst, stride, count);
            self.1.store_partial(below, stride, count);
        }
    }

    #[inline(always)]
    unsafe fn mul_acc(self, lhs: *const f32, stride: usize, panels: P) -> Self {
        let below = lhs.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the arguments keep the trait's contract for the whole tile, and so for each part that they are passed
        // to.
        unsafe { Self(self.0.mul_acc(lhs, stride, panels), self.1.mul_acc(below, stride, panels)) }
    }
}

pub type Rows1<P> = RowTile<P>;
pub type Rows2<P> = StackedTile<Rows1<P>, Rows1<P>>;
pub type Rows3<P> = StackedTile<Rows2<P>, Rows1<P>>;
pub type Rows4<P> = StackedTile<Rows2<P>, Rows2<P>>;
pub type Rows5<P> = StackedTile<Rows4<P>, Rows1<P>>;
pub type Rows6<P> = StackedTile<Rows4<P>, Rows2<P>>;
pub type Rows7<P> = StackedTile<Rows4<P>, Rows3<P>>;
pub type Rows8<P> = StackedTile<Rows4<P>, Rows4<P>>;
pub type Rows9<P> = StackedTile<Rows8<P>, Rows1<P>>;
pub type Rows10<P> = StackedTile<Rows8<P>, Rows2<P>>;
pub type Rows11<P> = StackedTile<Rows8<P>, Rows3<P>>;
pub type Rows12<P> = StackedTile<Rows8<P>, Rows4<P>>;

/// Calls a function with one more type argument: `call_with!((callee) [types] (arguments) Type)`.
macro_rules! call_with {
    (($($callee:tt)+) [$($type:ty),+] ($($argument:expr),*) $last:ty) => {
        $($callee)+::<$($type,)+ $last>($($argument),*)
    };
}

/// Calls a function with the tile type of `$rows` rows as its last type argument. `$max_rows` limits the tiles to those
/// that fit into the registers.
macro_rules! dispatch_tile_rows {
    ($rows:expr, $max_rows:expr, $callee:tt $types:tt $arguments:tt, $($count:literal => $tile:ty),+ $(,)?) => {
        match $rows {
            $($count if $count <= $max_rows => $crate::backend::cpu::micro_tile::call_with!($callee $types $arguments $tile),)+
            _ => {}
        }
    };
}

/// Calls a function with the vector type of `$count` panels (8, 4, 2 or 1) as its last type argument.
macro_rules! dispatch_panels {
    ($count:expr, $lanes:ty, $callee:tt $types:tt $arguments:tt) => {
        match $count {
            8 => $crate::backend::cpu::micro_tile::call_with!(
                $callee $types $arguments PanelPair<PanelPair<PanelPair<SinglePanel<$lanes>>>>
            ),
            4 => $crate::backend::cpu::micro_tile::call_with!(
                $callee $types $arguments PanelPair<PanelPair<SinglePanel<$lanes>>>
            ),
            2 => $crate::backend::cpu::micro_tile::call_with!($callee $types $arguments PanelPair<SinglePanel<$lanes>>),
            _ => $crate::backend::cpu::micro_tile::call_with!($callee $types $arguments SinglePanel<$lanes>),
        }
    };
}

pub(super) use {call_with, dispatch_panels, dispatch_tile_rows};
