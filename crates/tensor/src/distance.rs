//! What attention makes of the distance between the row that asks and the one that is asked: a window around it (Beltagy
//! et al. 2020), nothing of what comes after it (causal attention), or something added to the scores (Raffel et al. 2020).
//! Knows nothing of how attention is computed.

use super::{Buffer, Packed};
use std::ops::Range;

#[derive(Debug, Clone, Default)]
pub struct Distance {
    /// Rows further back than this are not looked at.
    pub behind: Option<usize>,
    /// Rows further ahead than this are not looked at; with none ahead attention is causal.
    pub ahead: Option<usize>,
    /// Added to the scores `(heads, 2·reach + 1)`, from distance −reach on; what is further away counts as there.
    pub bias: Option<Buffer>,
}

/// Distances within sequences. Keys in front of a sequence's own are seen from everywhere; they lie at the distances
/// before its first row.
#[derive(Debug, Clone, Copy)]
pub struct Near<'a> {
    pub distance: &'a Distance,
    /// The sequences' own rows, without keys in front.
    pub own: &'a Packed,
}

impl Distance {
    /// Rows up to so far to either side.
    pub fn window(reach: usize) -> Self {
        Self { behind: Some(reach), ahead: Some(reach), bias: None }
    }

    /// A row and those before it, perhaps only up to so far back.
    pub fn causal(behind: Option<usize>) -> Self {
        Self { behind, ahead: Some(0), bias: None }
    }

    /// The place, among a sequence's `own` rows, of the first that asks: where fewer ask, they are the first, or the last
    /// where attention is causal.
    pub fn first_asking(&self, asking: usize, own: usize) -> usize {
        if self.ahead == Some(0) { own - asking } else { 0 }
    }

    /// Whether there are keys that some rows do not look at.
    pub fn hides(&self) -> bool {
        self.behind.is_some() || self.ahead.is_some()
    }

    /// The keys that some rows look at, and perhaps others between them.
    pub fn seen(&self, rows: Range<usize>, front: usize, keys: usize) -> Range<usize> {
        let [before, _] = self.hidden(rows.start, front, keys);
        let [_, after] = self.hidden(rows.end.max(1) - 1, front, keys);
        let start = if front > 0 { 0 } else { before.end.min(after.start) };
        start..after.start
    }

    /// The keys that a row does not look at, before and after its window: `front` are in front of the sequence's own.
    pub fn hidden(&self, row: usize, front: usize, keys: usize) -> [Range<usize>; 2] {
        let first = self.behind.map_or(front, |behind| front + row.saturating_sub(behind));
        let end = self.ahead.map_or(keys, |ahead| (front + row + ahead + 1).min(keys));
        [front..first, end..keys]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_what_no_row_hides() {
        let distances = [Distance::causal(None), Distance::causal(Some(3)), Distance::window(2), Distance::default()];
        for (distance, front) in distances.iter().flat_map(|distance| [0, 2].map(|front| (distance, front))) {
            let keys = front + 12;
            for rows in [0..1, 0..5, 3..7, 9..12, 0..12] {
                let is_seen = |key: usize| {
                    let hidden = |row| distance.hidden(row, front, keys).iter().any(|range| range.contains(&key));
                    !rows.clone().all(hidden)
                };
                let seen = distance.seen(rows.clone(), front, keys);
                assert!((0..keys).all(|key| seen.contains(&key) || !is_seen(key)), "{distance:?} {front} {rows:?}");
                assert!(is_seen(seen.start) && is_seen(seen.end - 1), "{distance:?} {front} {rows:?}");
            }
        }
    }
}
