//! Parallel loops over large slices, for loading weights.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Slices below this are not worth a thread.
const MIN_PARALLEL_BYTES: usize = 1 << 20;

/// Parts per thread, so that a thread that is preempted does not delay the others.
const PARTS_PER_THREAD: usize = 4;

/// Calls `task` with the index of each chunk of `chunk_len` values and the chunk, on as many threads as the process has cores, the calling one
/// included. The last chunk may be shorter. Threads are started for each call and have the priority of the caller.
pub fn par_for_each_chunk<T: Send>(values: &mut [T], chunk_len: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let run = |first: usize, values: &mut [T]| {
        values.chunks_mut(chunk_len).enumerate().for_each(|(index, chunk)| task(first + index, chunk));
    };
    let threads = match size_of_val(values) < MIN_PARALLEL_BYTES {
        true => 1,
        false => thread::available_parallelism().map_or(1, usize::from),
    };
    if threads == 1 {
        return run(0, values);
    }
    let chunks_per_part = values.len().div_ceil(chunk_len).div_ceil(threads * PARTS_PER_THREAD);
    let parts = Mutex::new(values.chunks_mut(chunks_per_part * chunk_len).enumerate());
    let next_part = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((index, part)) = next_part() {
            run(index * chunks_per_part, part);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // If the operating system refuses another thread, those that run do its work.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_visited_once_with_its_index() {
        for length in [0, 1, 10, 11, MIN_PARALLEL_BYTES / 8, MIN_PARALLEL_BYTES + 3] {
            let mut values = vec![0usize; length];
            par_for_each_chunk(&mut values, 10, |index, chunk| chunk.iter_mut().for_each(|value| *value += index + 1));
            assert!(values.iter().enumerate().all(|(place, value)| *value == place / 10 + 1), "{length}");
        }
    }
}
