//! Elementwise sums, products and scaling, over whole SIMD vectors: the spare values at the end of an allocation take
//! part.

use super::matrix::{Matrix, MatrixBuf};
use super::simd::{LANES, Simd, SimdKernel, for_each_vector};
use std::marker::PhantomData;

/// Elementwise binary operation.
///
/// # Safety
/// The CPU supports the instructions of `L`.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
pub trait BinaryOp {
    unsafe fn apply<L: Simd>(lhs: L, rhs: L) -> L;
}

pub struct Add;
pub struct Multiply;

impl BinaryOp for Add {
    #[inline(always)]
    unsafe fn apply<L: Simd>(lhs: L, rhs: L) -> L {
        // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
        unsafe { lhs.add(rhs) }
    }
}

impl BinaryOp for Multiply {
    #[inline(always)]
    unsafe fn apply<L: Simd>(lhs: L, rhs: L) -> L {
        // SAFETY: only arithmetic on vectors; the CPU supports the instructions of `L`.
        unsafe { lhs.mul(rhs) }
    }
}

/// Applies the operation to every pair of elements.
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
            // SAFETY: `count` is rounded up to whole vectors, which all three allocations have room for; the CPU
            // supports `L`.
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
            // SAFETY: `count` is rounded up to whole vectors, which both allocations have room for; the CPU supports
            // `L`.
            unsafe { L::load(rows.wrapping_add(at)).mul(L::splat(self.factor)).store(out.wrapping_add(at)) };
        });
        buf.freeze()
    }
}
