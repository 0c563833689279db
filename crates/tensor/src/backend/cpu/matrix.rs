//! Matrices `(rows, width)` in host memory.
//!
//! Every allocation starts on a cache line and has at least sixteen spare values at its end, so that kernels may read and
//! write whole SIMD vectors past a row's end.

use super::memory::{self, ArenaSlice, CacheLine};
use super::simd::LANES;
use std::sync::Arc;

/// Mutable matrix `(rows, width)`.
#[derive(Debug)]
pub struct MatrixBuf {
    allocation: Allocation,
    rows: usize,
    width: usize,
}

/// Immutable shared matrix `(rows, width)`, row-major. Views of rows share the allocation.
#[derive(Debug, Clone)]
pub struct Matrix {
    allocation: Arc<Allocation>,
    /// Index of the first value in the allocation.
    offset: usize,
    rows: usize,
    width: usize,
}

#[derive(Debug)]
enum Allocation {
    /// Returned to the thread's buffer pool on drop.
    Pooled(Vec<CacheLine>),
    /// Of exactly the required size, freed on drop: for long-lived data.
    Owned(Box<[CacheLine]>),
    Arena(ArenaSlice),
}

impl Allocation {
    fn new(len: usize) -> Self {
        Self::Pooled(memory::acquire(len.div_ceil(LANES) + 1))
    }

    fn lines(&self) -> &[CacheLine] {
        match self {
            Self::Pooled(lines) => lines,
            Self::Owned(lines) => lines,
            Self::Arena(lasting) => lasting.lines(),
        }
    }

    fn lines_mut(&mut self) -> &mut [CacheLine] {
        match self {
            Self::Pooled(lines) => lines,
            Self::Owned(lines) => lines,
            Self::Arena(lasting) => lasting.lines_mut(),
        }
    }

    fn as_slice(&self) -> &[f32] {
        let lines = self.lines();
        // SAFETY: a `CacheLine` is an array of sixteen initialised `f32` without padding, so the lines are that many
        // values.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        let lines = self.lines_mut();
        // SAFETY: a `CacheLine` is an array of sixteen initialised `f32` without padding, and `&mut self` makes the
        // borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let Self::Pooled(lines) = self else { return };
        memory::release(std::mem::take(lines));
    }
}

impl MatrixBuf {
    /// Uninitialised in the logical sense: a reused buffer still holds its previous values.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { allocation: Allocation::new(rows * width), rows, width }
    }

    /// Zeros in an allocation of exactly this size, for long-lived data.
    pub fn zeros_exact_size(rows: usize, width: usize) -> Self {
        let lines = vec![CacheLine::ZERO; (rows * width).div_ceil(LANES) + 1];
        Self { allocation: Allocation::Owned(lines.into()), rows, width }
    }

    /// Zeros in the huge-page arena, for frozen weights.
    pub fn zeros_in_arena(rows: usize, width: usize) -> Self {
        let lines = (rows * width).div_ceil(LANES) + 1;
        Self { allocation: Allocation::Arena(ArenaSlice::zeros(lines)), rows, width }
    }

    pub fn zeros(rows: usize, width: usize) -> Self {
        let mut buf = Self::new(rows, width);
        buf.as_mut_slice().fill(0.0);
        buf
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        let len = self.rows * self.width;
        &mut self.allocation.as_mut_slice()[..len]
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, followed by the spare ones.
    pub fn as_padded_slice(&self) -> &[f32] {
        self.allocation.as_slice()
    }

    /// All values, followed by the spare ones.
    pub fn as_mut_padded_slice(&mut self) -> &mut [f32] {
        self.allocation.as_mut_slice()
    }

    pub fn freeze(self) -> Matrix {
        Matrix { allocation: Arc::new(self.allocation), offset: 0, rows: self.rows, width: self.width }
    }
}

impl Matrix {
    pub fn from_slice(rows: usize, width: usize, values: &[f32]) -> Self {
        let mut buf = MatrixBuf::new(rows, width);
        buf.as_mut_slice().copy_from_slice(values);
        buf.freeze()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.allocation.as_slice()[self.offset..self.offset + self.rows * self.width]
    }

    /// The values from the first row on, followed by at least sixteen more of the allocation.
    pub fn as_padded_slice(&self) -> &[f32] {
        &self.allocation.as_slice()[self.offset..]
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.as_slice()[row * self.width..(row + 1) * self.width]
    }

    /// Converts to a mutable matrix: in place if this is the only view of the allocation, else a copy.
    pub fn into_buf(self) -> MatrixBuf {
        let (rows, width, offset) = (self.rows, self.width, self.offset);
        match Arc::try_unwrap(self.allocation) {
            Ok(block) if offset == 0 => MatrixBuf { allocation: block, rows, width },
            Ok(block) => Self { allocation: Arc::new(block), offset, rows, width }.to_buf(),
            Err(block) => Self { allocation: block, offset, rows, width }.to_buf(),
        }
    }

    /// View `(rows, width)` of a single row's values from `offset` on.
    pub fn slice_flat(&self, offset: usize, rows: usize, width: usize) -> Self {
        assert!(offset + rows * width <= self.width, "the view lies within the row");
        Self { allocation: Arc::clone(&self.allocation), offset: self.offset + offset, rows, width }
    }

    fn to_buf(&self) -> MatrixBuf {
        let mut buf = MatrixBuf::new(self.rows, self.width);
        buf.as_mut_slice().copy_from_slice(self.as_slice());
        buf
    }

    /// The same values in rows of another width.
    pub fn reshaped(&self, width: usize) -> Self {
        let len = self.rows * self.width;
        assert!(len.is_multiple_of(width), "the values fill whole rows");
        Self { allocation: Arc::clone(&self.allocation), offset: self.offset, rows: len / width, width }
    }

    /// View of `row_count` rows from `first_row` on.
    pub fn slice_rows(&self, first_row: usize, row_count: usize) -> Self {
        assert!(first_row + row_count <= self.rows, "the view lies within the matrix");
        Self {
            allocation: Arc::clone(&self.allocation),
            offset: self.offset + first_row * self.width,
            rows: row_count,
            width: self.width,
        }
    }
}
