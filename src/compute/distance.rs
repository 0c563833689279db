//! What attention makes of the distance between the row that asks and the one that is asked: a window around it (Beltagy
//! et al. 2020), or something added to the scores (Raffel et al. 2020). Knows nothing of how attention is computed.

use super::{Buffer, Packed};
use std::ops::Range;

#[derive(Debug, Clone, Default)]
pub struct Distance {
    /// Rows further away than this are not looked at.
    pub window: Option<usize>,
    /// Added to the scores `(heads, 2·reach + 1)`, from distance −reach on; what is further away counts as there.
    pub bias: Option<Buffer>,
}

/// Distances within sequences. Keys in front of a sequence's own are seen from everywhere; they lie at the distances
/// before its first row.
#[derive(Debug, Clone, Copy)]
pub struct Near<'a> {
    pub distance: &'a Distance,
    /// The sequences' own rows, without keys in front. Where fewer ask, they are the first.
    pub own: &'a Packed,
}

/// The keys that a row does not look at, before and after its window: `front` are in front of the sequence's own.
pub fn hidden(row: usize, window: usize, front: usize, keys: usize) -> [Range<usize>; 2] {
    let (first, end) = (front + row.saturating_sub(window), front + row + window + 1);
    [front..first, end.min(keys)..keys]
}
