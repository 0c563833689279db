//! LoRA matrix in int8, for decode steps, which are bound by memory bandwidth.
//!
//! Each rank has one scale for A and one for B; both are applied to the projected values between the two products. So
//! the products read A and B as plain integers.

use crate::backend::cpu::gemm::Rhs;
use crate::backend::cpu::matrix::{Matrix, MatrixBuf};
use crate::backend::cpu::simd::{Isa, LANES, Simd, SimdKernel};

/// One cache line of values.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Int8CacheLine([i8; 64]);

/// `(k, n)` as integers from −127 to 127, in panels of sixteen columns; unused lanes are 0.
#[derive(Debug)]
pub struct Int8Matrix {
    lines: Box<[Int8CacheLine]>,
    /// Scale of each rank, padded to whole vectors.
    rank_scales: Box<[f32]>,
    k: usize,
    n: usize,
}

/// Axis of a matrix `(k, n)` along which the ranks lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankAxis {
    /// A, `(input, rank)`.
    Columns,
    /// B, `(rank, output)`.
    Rows,
}

impl Int8Matrix {
    pub fn quantize(matrix: &Matrix, rank_axis: RankAxis) -> Self {
        let (k, n) = (matrix.rows(), matrix.width());
        let rank_index = |row: usize, column: usize| if rank_axis == RankAxis::Rows { row } else { column };
        let rank_count = if rank_axis == RankAxis::Rows { k } else { n };
        let mut scales = vec![0f32; rank_count.next_multiple_of(LANES)].into_boxed_slice();
        for (row_index, row_values) in matrix.as_slice().chunks_exact(n).enumerate() {
            for (column, value) in row_values.iter().enumerate() {
                let max_abs = &mut scales[rank_index(row_index, column)];
                *max_abs = max_abs.max(value.abs());
            }
        }
        scales.iter_mut().for_each(|max_abs| *max_abs /= 127.0);
        let inverse: Vec<f32> = scales.iter().map(|scale| if *scale > 0.0 { 1.0 / scale } else { 0.0 }).collect();
        let bytes = n.div_ceil(LANES) * k * LANES;
        let mut lines = vec![Int8CacheLine([0; 64]); bytes.div_ceil(64)].into_boxed_slice();
        for (row_index, row_values) in matrix.as_slice().chunks_exact(n).enumerate() {
            for (column, value) in row_values.iter().enumerate() {
                let offset = (column / LANES * k + row_index) * LANES + column % LANES;
                let code = (value * inverse[rank_index(row_index, column)]).round();
                lines[offset / 64].0[offset % 64] = code.clamp(-127.0, 127.0) as i8;
            }
        }
        Self { lines, rank_scales: scales, k, n }
    }

    /// The integers as a right-hand side; scales are not applied.
    pub fn as_rhs(&self) -> Rhs<'_, i8> {
        Rhs::packed(self.as_i8_slice(), self.k)
    }

    /// Size in memory.
    pub fn size_bytes(&self) -> u64 {
        (size_of_val(&*self.lines) + size_of_val(&*self.rank_scales)) as u64
    }

    pub fn rank_scales(&self) -> &[f32] {
        &self.rank_scales
    }

    fn as_i8_slice(&self) -> &[i8] {
        // SAFETY: an `Int8CacheLine` is 64 initialised bytes without padding, and `i8` needs no alignment.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }

    /// Converts the integers to `f32` in the same panels; scales are not applied.
    pub fn dequantize_unscaled(&self, isa: Isa) -> Matrix {
        let mut buf = MatrixBuf::new(self.n.div_ceil(LANES), self.k * LANES);
        isa.run(Int8ToF32 { src: self.as_i8_slice(), dst: buf.as_mut_slice() });
        buf.freeze()
    }
}

struct Int8ToF32<'a> {
    src: &'a [i8],
    dst: &'a mut [f32],
}

impl SimdKernel for Int8ToF32<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        assert!(self.dst.len() <= self.src.len() && self.dst.len().is_multiple_of(LANES), "both hold whole panels");
        let mut offset = 0;
        while offset < self.dst.len() {
            // SAFETY: `dst` is a multiple of sixteen values long and `src` at least as long, as asserted; the CPU
            // supports `L`.
            unsafe { L::load_i8(self.src.as_ptr().add(offset)).store(self.dst.as_mut_ptr().add(offset)) };
            offset += LANES;
        }
    }
}
