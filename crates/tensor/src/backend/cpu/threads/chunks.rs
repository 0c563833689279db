//! Parallel loops over large slices, for loading weights.

use std::thread;

/// Slices below this are not worth a thread.
const MIN_PARALLEL_BYTES: usize = 1 << 20;

/// Calls `task` with the index of each chunk of `chunk_len` values and the chunk, on as many threads as the process has cores. The last chunk
/// may be shorter. Threads are started for each call and have the priority of the caller.
pub fn for_each_chunk<T: Send>(values: &mut [T], chunk_len: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let run = |first: usize, values: &mut [T]| {
        values.chunks_mut(chunk_len).enumerate().for_each(|(index, chunk)| task(first + index, chunk));
    };
    let threads = match size_of_val(values) < MIN_PARALLEL_BYTES {
        true => 1,
        false => thread::available_parallelism().map_or(1, usize::from),
    };
    let chunks_per_thread = values.len().div_ceil(chunk_len).div_ceil(threads);
    if threads == 1 {
        return run(0, values);
    }
    let run = &run;
    thread::scope(|scope| {
        for (index, values) in values.chunks_mut(chunks_per_thread * chunk_len).enumerate() {
            scope.spawn(move || run(index * chunks_per_thread, values));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_visited_once_with_its_index() {
        for length in [0, 1, 10, 11, MIN_PARALLEL_BYTES / 8, MIN_PARALLEL_BYTES + 3] {
            let mut values = vec![0usize; length];
            for_each_chunk(&mut values, 10, |index, chunk| chunk.iter_mut().for_each(|value| *value += index + 1));
            assert!(values.iter().enumerate().all(|(place, value)| *value == place / 10 + 1), "{length}");
        }
    }
}
