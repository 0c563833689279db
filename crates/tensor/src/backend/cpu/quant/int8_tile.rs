//! Register tiles of products with int8 activations.

use super::activations::LhsBlock;
use super::integer_dot::IntegerDot;
use crate::backend::cpu::simd::{LANES, Simd};

/// Accumulators of some rows and the two panels of a strip. A nested type, as in
/// [`micro_tile`](crate::backend::cpu::micro_tile).
///
/// # Safety
/// As for [`IntegerDot`]; strides are distances between rows.
pub trait Int8Tile<L: Simd>: Copy {
    const ROWS: usize;

    unsafe fn splat_row(sums: (L, L)) -> Self;
    unsafe fn load_partial(src: *const f32, stride: usize, count: usize) -> Self;
    /// Sets the integer sums to the initial ones of a span.
    unsafe fn start_span<F: IntegerDot>(self, lhs_blocks: *const LhsBlock, stride: usize) -> Self;
    /// Adds to the integer sums of the current span.
    unsafe fn dot_acc<F: IntegerDot>(self, lhs: *const i8, stride: usize, packed: (F::Packed<L>, F::Packed<L>))
    -> Self;
    /// Adds the scaled integer sums of the span to the total.
    unsafe fn finish_span<F: IntegerDot>(
        self,
        lhs_blocks: *const LhsBlock,
        stride: usize,
        weight_scales: ((L, L), (L, L)),
    ) -> Self;
    unsafe fn store_partial(self, dst: *mut f32, stride: usize, count: usize);
}

#[derive(Clone, Copy)]
pub struct Int8RowTile<L: Simd> {
    sums: (L, L),
    span_sums: (L::U32x16, L::U32x16),
}

impl<L: Simd> Int8Tile<L> for Int8RowTile<L> {
    const ROWS: usize = 1;

    #[inline(always)]
    unsafe fn splat_row(sums: (L, L)) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        Self { sums, span_sums: unsafe { (L::splat_i32(0), L::splat_i32(0)) } }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, _: usize, count: usize) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self::splat_row(load_strip(src, count)) }
    }

    #[inline(always)]
    unsafe fn start_span<F: IntegerDot>(self, lhs_blocks: *const LhsBlock, _: usize) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        let init = unsafe {
            match F::HAS_MINIMUM {
                true => L::splat_i32(0),
                false => L::splat_i32((*lhs_blocks).negated_code_sum << F::ZERO_POINT_BITS),
            }
        };
        Self { span_sums: (init, init), ..self }
    }

    #[inline(always)]
    unsafe fn dot_acc<F: IntegerDot>(self, lhs: *const i8, _: usize, packed: (F::Packed<L>, F::Packed<L>)) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        let span_sums = unsafe {
            (F::dot_packed::<L>(self.span_sums.0, packed.0, lhs), F::dot_packed::<L>(self.span_sums.1, packed.1, lhs))
        };
        Self { span_sums, ..self }
    }

    #[inline(always)]
    unsafe fn finish_span<F: IntegerDot>(
        self,
        lhs_blocks: *const LhsBlock,
        _: usize,
        weight_scales: ((L, L), (L, L)),
    ) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            let LhsBlock { scale, negated_code_sum } = *lhs_blocks;
            let splat_scale = L::splat(scale);
            let first = L::i32_to_f32(self.span_sums.0).mul_add(weight_scales.0.0.mul(splat_scale), self.sums.0);
            let second = L::i32_to_f32(self.span_sums.1).mul_add(weight_scales.1.0.mul(splat_scale), self.sums.1);
            let sums = match F::HAS_MINIMUM {
                false => (first, second),
                true => {
                    let lhs_sum = L::splat(scale * -(negated_code_sum as f32));
                    (weight_scales.0.1.mul_add(lhs_sum, first), weight_scales.1.1.mul_add(lhs_sum, second))
                }
            };
            Self { sums, ..self }
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, _: usize, count: usize) {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            self.sums.0.store_partial(dst, count);
            self.sums.1.store_partial(dst.wrapping_add(LANES), count.saturating_sub(LANES));
        }
    }
}

/// Loads `count` values of a strip's row; the rest is 0.
///
/// # Safety
/// `src` is readable for `count` values, and the CPU supports the instructions of `L`.
#[inline(always)]
pub unsafe fn load_strip<L: Simd>(src: *const f32, count: usize) -> (L, L) {
    // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they are
    // passed to; the CPU supports `L`.
    unsafe { (L::load_partial(src, count), L::load_partial(src.wrapping_add(LANES), count.saturating_sub(LANES))) }
}

/// Two tiles, one above the other.
#[derive(Clone, Copy)]
pub struct Int8StackedTile<A, B>(A, B);

pub type Int8Rows1<L> = Int8RowTile<L>;
pub type Int8Rows2<L> = Int8StackedTile<Int8Rows1<L>, Int8Rows1<L>>;
pub type Int8Rows3<L> = Int8StackedTile<Int8Rows2<L>, Int8Rows1<L>>;
pub type Int8Rows4<L> = Int8StackedTile<Int8Rows2<L>, Int8Rows2<L>>;
pub type Int8Rows5<L> = Int8StackedTile<Int8Rows4<L>, Int8Rows1<L>>;
pub type Int8Rows6<L> = Int8StackedTile<Int8Rows4<L>, Int8Rows2<L>>;

impl<L: Simd, A: Int8Tile<L>, B: Int8Tile<L>> Int8Tile<L> for Int8StackedTile<A, B> {
    const ROWS: usize = A::ROWS + B::ROWS;

    #[inline(always)]
    unsafe fn splat_row(sums: (L, L)) -> Self {
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(A::splat_row(sums), B::splat_row(sums)) }
    }

    #[inline(always)]
    unsafe fn load_partial(src: *const f32, stride: usize, count: usize) -> Self {
        let below = src.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(A::load_partial(src, stride, count), B::load_partial(below, stride, count)) }
    }

    #[inline(always)]
    unsafe fn dot_acc<F: IntegerDot>(
        self,
        lhs: *const i8,
        stride: usize,
        packed: (F::Packed<L>, F::Packed<L>),
    ) -> Self {
        let below = lhs.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(self.0.dot_acc::<F>(lhs, stride, packed), self.1.dot_acc::<F>(below, stride, packed)) }
    }

    #[inline(always)]
    unsafe fn start_span<F: IntegerDot>(self, lhs_blocks: *const LhsBlock, stride: usize) -> Self {
        let below = lhs_blocks.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe { Self(self.0.start_span::<F>(lhs_blocks, stride), self.1.start_span::<F>(below, stride)) }
    }

    #[inline(always)]
    unsafe fn finish_span<F: IntegerDot>(
        self,
        lhs_blocks: *const LhsBlock,
        stride: usize,
        weight_scales: ((L, L), (L, L)),
    ) -> Self {
        let below = lhs_blocks.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            Self(
                self.0.finish_span::<F>(lhs_blocks, stride, weight_scales),
                self.1.finish_span::<F>(below, stride, weight_scales),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_partial(self, dst: *mut f32, stride: usize, count: usize) {
        let below = dst.wrapping_add(A::ROWS.wrapping_mul(stride));
        // SAFETY: the pointers keep the contract of the trait or function that this belongs to, for each row that they
        // are passed to; the CPU supports `L`.
        unsafe {
            self.0.store_partial(dst, stride, count);
            self.1.store_partial(below, stride, count);
        }
    }
}
