//! Element by element: sums and products. In registers of sixteen, over whole blocks, the numbers to spare
//! at a block's end included.

use super::matrix::{Matrix, MatrixBuf};
use super::simd::{LANES, Simd, SimdKernel, for_each_vector};
use std::marker::PhantomData;

/// An operation on pairs of numbers.
///
/// # Safety
/// As [`Lanes`].
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait BinaryOp {
    unsafe fn apply<L: Simd>(lhs: L, rhs: L) -> L;
}

pub struct Add;
pub struct Multiply;

impl BinaryOp for Add {
    #[inline(always)]
    unsafe fn apply<L: Simd>(lhs: L, rhs: L) -> L {
        // SAFETY: the caller's.
        unsafe { lhs.add(rhs) }
    }
}

impl BinaryOp for Multiply {
    #[inline(always)]
    unsafe fn apply<L: Simd>(lhs: L, rhs: L) -> L {
        // SAFETY: the caller's.
        unsafe { lhs.mul(rhs) }
    }
}

/// The operation on every pair.
pub struct ZipMap<'a, O> {
    lhs: &'a Matrix,
    rhs: &'a Matrix,
    operation: PhantomData<O>,
}

impl<'a, O: BinaryOp> ZipMap<'a, O> {
    pub fn new(lhs: &'a Matrix, rhs: &'a Matrix) -> Self {
        assert_eq!((lhs.rows(), lhs.width()), (rhs.rows(), rhs.width()), "both sides have one shape");
        Self { lhs, rhs, operation: PhantomData }
    }
}

impl<O: BinaryOp> SimdKernel for ZipMap<'_, O> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Simd>(self) -> Matrix {
        let mut buf = MatrixBuf::new(self.lhs.rows(), self.lhs.width());
        let padded_len = self.lhs.as_slice().len().next_multiple_of(LANES);
        let lhs = self.lhs.as_padded_slice()[..padded_len].as_ptr();
        let rhs = self.rhs.as_padded_slice()[..padded_len].as_ptr();
        let out = buf.as_mut_padded_slice()[..padded_len].as_mut_ptr();
        for_each_vector!(padded_len, at, {
            // SAFETY: whole registers up to `count`, which all three hold; the caller's for the rest.
            unsafe {
                let value = O::apply(L::load(lhs.wrapping_add(at)), L::load(rhs.wrapping_add(at)));
                value.store(out.wrapping_add(at));
            }
        });
        buf.freeze()
    }
}

pub struct Scale<'a> {
    pub rows: &'a Matrix,
    pub factor: f32,
}

impl SimdKernel for Scale<'_> {
    type Output = Matrix;

    #[inline(always)]
    unsafe fn run<L: Simd>(self) -> Matrix {
        let mut buf = MatrixBuf::new(self.rows.rows(), self.rows.width());
        let padded_len = self.rows.as_slice().len().next_multiple_of(LANES);
        let rows = self.rows.as_padded_slice()[..padded_len].as_ptr();
        let out = buf.as_mut_padded_slice()[..padded_len].as_mut_ptr();
        for_each_vector!(padded_len, at, {
            // SAFETY: whole registers up to `count`, which both hold; the caller's for the rest.
            unsafe { L::load(rows.wrapping_add(at)).mul(L::splat(self.factor)).store(out.wrapping_add(at)) };
        });
        buf.freeze()
    }
}
