//! Attention masks by relative position: sliding windows (Beltagy et al. 2020), causal masks, and relative position
//! biases (Raffel et al. 2020).

use super::{Buffer, RaggedLayout};
use std::ops::Range;

/// Which keys a query attends to by relative position, and the bias of their scores.
#[derive(Debug, Clone, Default)]
pub struct AttentionMask {
    /// Maximum distance to earlier keys.
    pub left_window: Option<usize>,
    /// Maximum distance to later keys; 0 is causal.
    pub right_window: Option<usize>,
    /// Bias added to the scores `(heads, 2·max distance + 1)`, from distance −max on; larger distances are clamped.
    pub relative_position_bias: Option<Buffer>,
}

/// Mask with the layout that positions are counted in. Prefix keys are visible from every row and lie before the first
/// row.
#[derive(Debug, Clone, Copy)]
pub struct MaskContext<'a> {
    pub mask: &'a AttentionMask,
    /// Key rows of the sequences without prefixes.
    pub unprefixed_key_layout: &'a RaggedLayout,
}

impl AttentionMask {
    /// Window of `radius` rows to either side.
    pub fn symmetric_window(radius: usize) -> Self {
        Self { left_window: Some(radius), right_window: Some(radius), relative_position_bias: None }
    }

    /// Causal mask, optionally with a sliding window.
    pub fn causal(left_window: Option<usize>) -> Self {
        Self { left_window, right_window: Some(0), relative_position_bias: None }
    }

    /// Position of the first query row among the sequence's rows. If there are fewer queries than keys, they are the
    /// last rows under a causal mask, else the first.
    pub fn query_offset(&self, query_rows: usize, key_rows: usize) -> usize {
        if self.right_window == Some(0) { key_rows - query_rows } else { 0 }
    }

    /// Whether any key is masked for any row.
    pub fn is_masked(&self) -> bool {
        self.left_window.is_some() || self.right_window.is_some()
    }

    /// Smallest range that contains all keys visible to the query rows.
    pub fn visible_range(&self, query_rows: Range<usize>, prefix_rows: usize, key_count: usize) -> Range<usize> {
        let [masked_left, _] = self.masked_ranges(query_rows.start, prefix_rows, key_count);
        let [_, masked_right] = self.masked_ranges(query_rows.end.max(1) - 1, prefix_rows, key_count);
        let start = if prefix_rows > 0 { 0 } else { masked_left.end.min(masked_right.start) };
        start..masked_right.start
    }

    /// Masked keys before and after a row's window; the first `prefix_rows` keys are always visible.
    pub fn masked_ranges(&self, query_row: usize, prefix_rows: usize, key_count: usize) -> [Range<usize>; 2] {
        let visible_start =
            self.left_window.map_or(prefix_rows, |window| prefix_rows + query_row.saturating_sub(window));
        let visible_end =
            self.right_window.map_or(key_count, |window| (prefix_rows + query_row + window + 1).min(key_count));
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
        for (mask, prefix_rows) in masks.iter().flat_map(|mask| [0, 2].map(|prefix_rows| (mask, prefix_rows))) {
            let keys = prefix_rows + 12;
            for rows in [0..1, 0..5, 3..7, 9..12, 0..12] {
                let is_visible = |key: usize| {
                    let hidden =
                        |row| mask.masked_ranges(row, prefix_rows, keys).iter().any(|range| range.contains(&key));
                    !rows.clone().all(hidden)
                };
                let visible = mask.visible_range(rows.clone(), prefix_rows, keys);
                assert!(
                    (0..keys).all(|key| visible.contains(&key) || !is_visible(key)),
                    "{mask:?} {prefix_rows} {rows:?}"
                );
                assert!(is_visible(visible.start) && is_visible(visible.end - 1), "{mask:?} {prefix_rows} {rows:?}");
            }
        }
    }
}
