//! Mutable view of some columns of a matrix, so that threads can write disjoint columns of one output.
//!
//! Like `split_at_mut` for columns: slices never overlap.

use super::weight::QuantizedWeight;
use crate::backend::cpu::threads::{SpinThreadPool, split_evenly};
use crate::quant::STRIP_COLUMNS;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Exclusive view of some columns of `(rows, width)`.
#[derive(Debug)]
pub struct ColumnSlice<'a> {
    base: *mut f32,
    rows: usize,
    row_stride: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: the slice has exclusive access to its columns while it lives, like `&mut [f32]`, which is `Send`.
unsafe impl Send for ColumnSlice<'_> {}

impl<'a> ColumnSlice<'a> {
    /// View of all columns of `(rows, cols)`.
    pub fn new(matrix: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(rows * cols <= matrix.len(), "the output holds every row");
        Self { base: matrix.as_mut_ptr(), rows, row_stride: cols, columns: 0..cols, matrix: PhantomData }
    }

    /// Splits the view before a column.
    pub fn split_at(self, column: usize) -> (Self, Self) {
        let Range { start, end } = self.columns;
        assert!((start..=end).contains(&column), "the split is within the columns");
        let with_columns = |columns| Self { columns, ..self };
        (with_columns(start..column), with_columns(column..end))
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Range of the columns.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Distance between rows.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Pointer to an element of this view. It may be used for the view's columns to the right of it, in its row and, at
    /// multiples of [`ColumnSlice::row_stride`], in the rows below.
    pub fn ptr_at(&mut self, row: usize, column: usize) -> *mut f32 {
        assert!(row < self.rows && self.columns.contains(&column), "the element lies within the slice");
        // SAFETY: row and column were checked, and `new` has asserted that the matrix holds all rows and columns.
        unsafe { self.base.add(row * self.row_stride + column) }
    }
}

impl QuantizedWeight {
    /// Computes a product of all columns, split over the threads of the pool.
    pub fn parallel_columns(
        &self,
        pool: &mut SpinThreadPool,
        output: ColumnSlice,
        multiply: impl Fn(&mut ColumnSlice) + Sync,
    ) {
        assert_eq!(output.columns(), 0..self.out_features(), "the output has all columns");
        let threads = pool.thread_count();
        let mut remaining = Some(output);
        let split_for = |index| {
            let end = split_evenly(self.strip_count(), index, threads).end * STRIP_COLUMNS;
            let (slice, tail) = remaining.take()?.split_at(end.min(self.out_features()));
            remaining = Some(tail);
            // Each slice is locked once, by the thread with its index, so the lock is never contended.
            Some(Mutex::new(slice))
        };
        let slices: Vec<_> = (0..threads).filter_map(split_for).collect();
        pool.run(|index| {
            let mut slice = slices[index].lock().unwrap_or_else(PoisonError::into_inner);
            multiply(&mut slice);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_slices_write_only_their_own_columns() {
        let mut matrix = vec![0.0; 3 * 10];
        let (mut left, remaining) = ColumnSlice::new(&mut matrix, 3, 10).split_at(4);
        let (mut middle, mut right) = remaining.split_at(9);
        assert_eq!([left.columns(), middle.columns(), right.columns()], [0..4, 4..9, 9..10]);
        std::thread::scope(|scope| {
            for (number, slice) in [&mut left, &mut middle, &mut right].into_iter().enumerate() {
                scope.spawn(move || {
                    for row in 0..slice.rows() {
                        for column in slice.columns() {
                            // SAFETY: row and column are within this slice, which no other thread has.
                            unsafe { slice.ptr_at(row, column).write((100 * number + 10 * row + column) as f32) };
                        }
                    }
                });
            }
        });
        for (index, value) in matrix.iter().enumerate() {
            let part = [4, 9, 10].iter().position(|end| index % 10 < *end).unwrap();
            assert_eq!(*value, (100 * part + index) as f32);
        }
    }
}
