//! Forward passes over many examples on a thread pool.

use super::progress::{Interrupted, ProgressReporter};
use crate::error::Result;
use espalier_tensor::worker_pool::WorkerPool;
use std::sync::Arc;

/// Micro-batches between two checks of the stop signal: one or two seconds.
const STOP_CHECK_INTERVAL: usize = 16;

/// Computes every micro-batch and passes the values of each example to `consume`, in the order of the micro-batches.
/// `value_count` is the number of values of an example.
pub fn for_each_example<F>(
    pool: &WorkerPool,
    micro_batches: &[Vec<usize>],
    forward: F,
    reporter: &mut ProgressReporter,
    value_count: impl Fn(usize) -> usize,
    mut consume: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<(), Interrupted>
where
    F: Fn(Vec<usize>) -> Result<Vec<f32>> + Send + Sync + 'static,
{
    let forward = Arc::new(forward);
    for chunk in micro_batches.chunks(STOP_CHECK_INTERVAL) {
        reporter.check_stop()?;
        for (micro_batch, values) in chunk.iter().zip(pool.map(chunk.to_vec(), &forward)?) {
            let mut remaining = values.as_slice();
            for example in micro_batch {
                let (example_values, following) = remaining.split_at(value_count(*example));
                consume(*example, example_values)?;
                remaining = following;
            }
        }
    }
    Ok(())
}
