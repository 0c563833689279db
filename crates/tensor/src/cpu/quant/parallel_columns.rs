//! A product whose columns are shared among the threads of a team.

use super::column_slice::ColumnSlice;
use super::format::STRIP_COLUMNS;
use super::quantized_weight::QuantizedWeight;
use crate::cpu::thread_pool::{SpinThreadPool, split_evenly};
use std::sync::{Mutex, PoisonError};

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
