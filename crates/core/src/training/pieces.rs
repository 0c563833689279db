//! Forward passes over many examples, piece by piece on a crew, with an ear for a stop.

use super::run::Halt;
use super::speaker::Speaker;
use crate::error::Result;
use espalier_tensor::pool::Crew;
use std::sync::Arc;

/// Pieces between two looks at whether to stop: a second or two.
const LISTEN_EVERY: usize = 16;

/// Computes every piece and hands its numbers over, in the order of the pieces.
pub fn each<F>(
    crew: &Crew,
    pieces: &[Vec<usize>],
    compute: F,
    speaker: &mut Speaker,
    mut take: impl FnMut(&[usize], &[f32]) -> Result<()>,
) -> Result<(), Halt>
where
    F: Fn(Vec<usize>) -> Result<Vec<f32>> + Send + Sync + 'static,
{
    let compute = Arc::new(compute);
    for some in pieces.chunks(LISTEN_EVERY) {
        speaker.listen()?;
        for (piece, values) in some.iter().zip(crew.map(some.to_vec(), &compute)?) {
            take(piece, &values)?;
        }
    }
    Ok(())
}
