//! Forward passes over many examples, piece by piece on a crew, with an ear for a stop.

use super::progress_reporter::ProgressReporter;
use super::trainer::Interrupted;
use crate::error::Result;
use espalier_tensor::worker_pool::WorkerPool;
use std::sync::Arc;

/// Pieces between two looks at whether to stop: a second or two.
const STOP_CHECK_INTERVAL: usize = 16;

/// Computes every piece and hands its numbers over, in the order of the pieces.
pub fn parallel_forward<F>(
    pool: &WorkerPool,
    micro_batches: &[Vec<usize>],
    forward: F,
    reporter: &mut ProgressReporter,
    mut consume: impl FnMut(&[usize], &[f32]) -> Result<()>,
) -> Result<(), Interrupted>
where
    F: Fn(Vec<usize>) -> Result<Vec<f32>> + Send + Sync + 'static,
{
    let compute = Arc::new(forward);
    for chunk in micro_batches.chunks(STOP_CHECK_INTERVAL) {
        reporter.check_stop()?;
        for (micro_batch, values) in chunk.iter().zip(pool.map(chunk.to_vec(), &compute)?) {
            consume(micro_batch, &values)?;
        }
    }
    Ok(())
}
