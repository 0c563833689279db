//! What attention makes of the distance between the row that asks and the one that is asked: a window around it (Beltagy
//! et al. 2020), nothing of what comes after it (causal attention), or something added to the scores (Raffel et al. 2020).
//! Knows nothing of how attention is computed.

use super::{Buffer, RaggedLayout};
use std::ops::Range;

#[derive(Debug, Clone, Default)]
pub struct AttentionMask {
    /// Rows further back than this are not looked at.
    pub left_window: Option<usize>,
    /// Rows further ahead than this are not looked at; with none ahead attention is causal.
    pub right_window: Option<usize>,
    /// Added to the scores `(heads, 2·reach + 1)`, from distance −reach on; what is further away counts as there.
    pub relative_position_bias: Option<Buffer>,
}

/// Distances within sequences. Keys in front of a sequence's own are seen from everywhere; they lie at the distances
/// before its first row.
#[derive(Debug, Clone, Copy)]
pub struct MaskContext<'a> {
    pub mask: &'a AttentionMask,
    /// The sequences' own rows, without keys in front.
    pub unprefixed_key_layout: &'a RaggedLayout,
}

impl AttentionMask {
    /// Rows up to so far to either side.
    pub fn symmetric_window(radius: usize) -> Self {
        Self { left_window: Some(radius), right_window: Some(radius), relative_position_bias: None }
    }

    /// A row and those before it, perhaps only up to so far back.
    pub fn causal(left_window: Option<usize>) -> Self {
        Self { left_window, right_window: Some(0), relative_position_bias: None }
    }

    /// The place, among a sequence's `own` rows, of the first that asks: where fewer ask, they are the first, or the last
    /// where attention is causal.
    pub fn query_offset(&self, query_rows: usize, key_rows: usize) -> usize {
        if self.right_window == Some(0) { key_rows - query_rows } else { 0 }
    }

    /// Whether there are keys that some rows do not look at.
    pub fn is_masked(&self) -> bool {
        self.left_window.is_some() || self.right_window.is_some()
    }

    /// The keys that some rows look at, and perhaps others between them.
    pub fn visible_range(&self, query_rows: Range<usize>, prefix_rows: usize, key_count: usize) -> Range<usize> {
        let [masked_left, _] = self.masked_ranges(query_rows.start, prefix_rows, key_count);
        let [_, masked_right] = self.masked_ranges(query_rows.end.max(1) - 1, prefix_rows, key_count);
        let start = if prefix_rows > 0 { 0 } else { masked_left.end.min(masked_right.start) };
        start..masked_right.start
    }

    /// The keys that a row does not look at, before and after its window: `front` are in front of the sequence's own.
    pub fn masked_ranges(&self, query_row: usize, prefix_rows: usize, key_count: usize) -> [Range<usize>; 2] {
        let visible_start =
            self.left_window.map_or(prefix_rows, |behind| prefix_rows + query_row.saturating_sub(behind));
        let visible_end =
            self.right_window.map_or(key_count, |ahead| (prefix_rows + query_row + ahead + 1).min(key_count));
        [prefix_rows..visible_start, visible_end..key_count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_range_covers_every_key_some_row_attends_to() {
        let masks = [
            AttentionMask::causal(None),
            AttentionMask::causal(Some(3)),
            AttentionMask::symmetric_window(2),
            AttentionMask::default(),
        ];
        for (distance, front) in masks.iter().flat_map(|distance| [0, 2].map(|front| (distance, front))) {
            let keys = front + 12;
            for rows in [0..1, 0..5, 3..7, 9..12, 0..12] {
                let is_seen = |key: usize| {
                    let hidden =
                        |row| distance.masked_ranges(row, front, keys).iter().any(|range| range.contains(&key));
                    !rows.clone().all(hidden)
                };
                let seen = distance.visible_range(rows.clone(), front, keys);
                assert!((0..keys).all(|key| seen.contains(&key) || !is_seen(key)), "{distance:?} {front} {rows:?}");
                assert!(is_seen(seen.start) && is_seen(seen.end - 1), "{distance:?} {front} {rows:?}");
            }
        }
    }
}
