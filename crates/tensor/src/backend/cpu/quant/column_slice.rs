//! Where a product writes: some columns of rows, beside which other threads may be writing others.
//!
//! It is to a matrix what a mutable slice is to numbers: parts do not overlap, so they may go to different threads. Knows
//! nothing of what is written.

use super::weight::QuantizedWeight;
use crate::backend::cpu::threads::{SpinThreadPool, split_evenly};
use crate::quant::STRIP_COLUMNS;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Columns of `(rows, width)`, written by whoever has this, and nobody else.
#[derive(Debug)]
pub struct ColumnSlice<'a> {
    base: *mut f32,
    rows: usize,
    row_stride: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for numbers that nobody else reads or writes while it lives, as `&mut [f32]` does.
unsafe impl Send for ColumnSlice<'_> {}

impl<'a> ColumnSlice<'a> {
    /// All columns of `(rows, width)`.
    pub fn new(matrix: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(rows * cols <= matrix.len(), "the output holds every row");
        Self { base: matrix.as_mut_ptr(), rows, row_stride: cols, columns: 0..cols, matrix: PhantomData }
    }

    /// Those before a column, and those from it on.
    pub fn split_at(self, column: usize) -> (Self, Self) {
        let Range { start, end } = self.columns;
        assert!((start..=end).contains(&column), "a part lies within the whole");
        let with_columns = |columns| Self { columns, ..self };
        (with_columns(start..column), with_columns(column..end))
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Which they are.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// From one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// A number of ours. What may be read and written from there on are our columns to its right, in its row and, a
    /// [`Output::step`] further each, in those below.
    pub fn ptr_at(&mut self, row: usize, column: usize) -> *mut f32 {
        assert!(row < self.rows && self.columns.contains(&column), "a number lies within its part");
        // SAFETY: it lies within the matrix that this was made of.
        unsafe { self.base.add(row * self.row_stride + column) }
    }
}

impl QuantizedWeight {
    /// A product of all columns, on all threads of the team: each multiplies for some of them.
    pub fn parallel_columns(
        &self,
        pool: &mut SpinThreadPool,
        output: ColumnSlice,
        multiply: impl Fn(&mut ColumnSlice) + Sync,
    ) {
        assert_eq!(output.columns(), 0..self.out_features(), "all columns are shared");
        let threads = pool.thread_count();
        let mut remaining = Some(output);
        let split_for = |index| {
            let end = split_evenly(self.strip_count(), index, threads).end * STRIP_COLUMNS;
            let (slice, tail) = remaining.take()?.split_at(end.min(self.out_features()));
            remaining = Some(tail);
            // Each is taken once, by the thread with its index: nobody ever waits here.
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
                            // SAFETY: a number of our own.
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
