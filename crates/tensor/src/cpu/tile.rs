//! The sums of a tile, in registers: some rows by some panels.
//!
//! A tile is put together as a type, [`Twice`] a panel and [`Stack`]s of rows, and not as an array: what has no index
//! ends in registers, however little the compiler optimises. Knows nothing of where the rows come from.

use super::lanes::{LANES, Lanes, Number};

/// Neighbouring panels of one row.
///
/// # Safety
/// As [`Lanes`]; steps are from one panel, or row, to the next.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Panels<L: Lanes>: Copy {
    const COUNT: usize;

    unsafe fn zero() -> Self;
    unsafe fn load<N: Number>(from: *const N, step: usize) -> Self;
    /// Asks for what [`Panels::load`] will read there.
    unsafe fn fetch<N: Number>(from: *const N, step: usize);
    /// `count` numbers of neighbouring panels of a row; 0 beyond them.
    unsafe fn read(from: *const f32, count: usize) -> Self;
    unsafe fn write(self, to: *mut f32, count: usize);
    /// `self + value · panels`
    unsafe fn plus(self, value: L, panels: Self) -> Self;
}

#[derive(Clone, Copy)]
pub struct Panel<L>(pub L);

impl<L: Lanes> Panels<L> for Panel<L> {
    const COUNT: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        Self(unsafe { L::splat(0.0) })
    }

    #[inline(always)]
    unsafe fn load<N: Number>(from: *const N, _: usize) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { N::load(from) })
    }

    #[inline(always)]
    unsafe fn fetch<N: Number>(from: *const N, _: usize) {
        // SAFETY: the caller's.
        unsafe { L::fetch(from.cast()) }
    }

    #[inline(always)]
    unsafe fn read(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { L::load_some(from, count) })
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's.
        unsafe { self.0.store_some(to, count) }
    }

    #[inline(always)]
    unsafe fn plus(self, value: L, panels: Self) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { value.fused(panels.0, self.0) })
    }
}

#[derive(Clone, Copy)]
pub struct Twice<P>(pub P, pub P);

impl<L: Lanes, P: Panels<L>> Panels<L> for Twice<P> {
    const COUNT: usize = 2 * P::COUNT;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        unsafe { Self(P::zero(), P::zero()) }
    }

    #[inline(always)]
    unsafe fn load<N: Number>(from: *const N, step: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(P::load(from, step), P::load(from.wrapping_add(P::COUNT.wrapping_mul(step)), step)) }
    }

    #[inline(always)]
    unsafe fn fetch<N: Number>(from: *const N, step: usize) {
        // SAFETY: the caller's.
        unsafe {
            P::fetch(from, step);
            P::fetch(from.wrapping_add(P::COUNT.wrapping_mul(step)), step);
        }
    }

    #[inline(always)]
    unsafe fn read(from: *const f32, count: usize) -> Self {
        let half = P::COUNT * LANES;
        // SAFETY: the caller's.
        unsafe { Self(P::read(from, count), P::read(from.wrapping_add(half), count.saturating_sub(half))) }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, count: usize) {
        let half = P::COUNT * LANES;
        // SAFETY: the caller's.
        unsafe {
            self.0.write(to, count);
            self.1.write(to.wrapping_add(half), count.saturating_sub(half));
        }
    }

    #[inline(always)]
    unsafe fn plus(self, value: L, panels: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(self.0.plus(value, panels.0), self.1.plus(value, panels.1)) }
    }
}

/// Some rows of panels.
///
/// # Safety
/// As [`Panels`].
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Sums<L: Lanes, P: Panels<L>>: Copy {
    const ROWS: usize;

    unsafe fn all(panels: P) -> Self;
    unsafe fn read(from: *const f32, step: usize, count: usize) -> Self;
    unsafe fn write(self, to: *mut f32, step: usize, count: usize);
    /// Each row plus its number on the left times the panels.
    unsafe fn plus(self, left: *const f32, step: usize, panels: P) -> Self;
}

#[derive(Clone, Copy)]
pub struct Row<P>(P);

impl<L: Lanes, P: Panels<L>> Sums<L, P> for Row<P> {
    const ROWS: usize = 1;

    #[inline(always)]
    unsafe fn all(panels: P) -> Self {
        Self(panels)
    }

    #[inline(always)]
    unsafe fn read(from: *const f32, _: usize, count: usize) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { P::read(from, count) })
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, _: usize, count: usize) {
        // SAFETY: the caller's.
        unsafe { self.0.write(to, count) }
    }

    #[inline(always)]
    unsafe fn plus(self, left: *const f32, _: usize, panels: P) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { self.0.plus(L::splat_from(left), panels) })
    }
}

#[derive(Clone, Copy)]
pub struct Stack<A, B>(A, B);

impl<L: Lanes, P: Panels<L>, A: Sums<L, P>, B: Sums<L, P>> Sums<L, P> for Stack<A, B> {
    const ROWS: usize = A::ROWS + B::ROWS;

    #[inline(always)]
    unsafe fn all(panels: P) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(A::all(panels), B::all(panels)) }
    }

    #[inline(always)]
    unsafe fn read(from: *const f32, step: usize, count: usize) -> Self {
        let below = from.wrapping_add(A::ROWS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe { Self(A::read(from, step, count), B::read(below, step, count)) }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, step: usize, count: usize) {
        let below = to.wrapping_add(A::ROWS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe {
            self.0.write(to, step, count);
            self.1.write(below, step, count);
        }
    }

    #[inline(always)]
    unsafe fn plus(self, left: *const f32, step: usize, panels: P) -> Self {
        let below = left.wrapping_add(A::ROWS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe { Self(self.0.plus(left, step, panels), self.1.plus(below, step, panels)) }
    }
}

pub type R1<P> = Row<P>;
pub type R2<P> = Stack<R1<P>, R1<P>>;
pub type R3<P> = Stack<R2<P>, R1<P>>;
pub type R4<P> = Stack<R2<P>, R2<P>>;
pub type R5<P> = Stack<R4<P>, R1<P>>;
pub type R6<P> = Stack<R4<P>, R2<P>>;
pub type R7<P> = Stack<R4<P>, R3<P>>;
pub type R8<P> = Stack<R4<P>, R4<P>>;
pub type R9<P> = Stack<R8<P>, R1<P>>;
pub type R10<P> = Stack<R8<P>, R2<P>>;
pub type R11<P> = Stack<R8<P>, R3<P>>;
pub type R12<P> = Stack<R8<P>, R4<P>>;
