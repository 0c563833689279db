//! Which layers a training step remembers at once: all of them, or, where that would be too much memory, some, and the others are
//! computed again on the way back (Chen et al. 2016).
//!
//! The result is the same to the bit. Knows nothing of tapes.

use crate::model::{BaseModel, Pooling};
use std::ops::Range;

/// Bytes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationCost {
    /// What the way back through a layer needs.
    pub layer: u64,
    /// What goes from one layer to the next.
    pub boundary: u64,
}

impl ActivationCost {
    /// About: of every map what goes in once, and what comes out twice, as it is and as what follows makes of it.
    pub fn of(base: &BaseModel, pooling: Pooling) -> Self {
        let sites = base.sites(pooling);
        let layer = sites.iter().filter(|info| info.site.layer == Some(0));
        let values_per_row: usize = layer.map(|info| info.in_features + 2 * info.out_features).sum();
        Self { layer: (4 * values_per_row) as u64, boundary: 4 * base.info().hidden_size as u64 }
    }

    /// The layers in as few neighbouring pieces as keep to the budget, the last ones together; one by one where none does.
    pub fn partition(self, layers: Range<usize>, rows: usize, budget: u64) -> Vec<Range<usize>> {
        let (count, rows) = (layers.len().max(1), rows as u64);
        let bytes_needed = |pieces: usize| {
            let boundary_bytes = (pieces as u64 - 1) * self.boundary;
            (count.div_ceil(pieces) as u64 * self.layer + boundary_bytes).saturating_mul(rows)
        };
        let segment_count = (1..=count).find(|pieces| bytes_needed(*pieces) <= budget).unwrap_or(count);
        let layers_per_segment = count.div_ceil(segment_count);
        let mut segments = Vec::new();
        let mut end = layers.end;
        while end > layers.start {
            let start = end.saturating_sub(layers_per_segment).max(layers.start);
            segments.push(start..end);
            end = start;
        }
        segments.reverse();
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_partitioned_into_as_few_segments_as_fit_the_budget() {
        let costs = ActivationCost { layer: 100, boundary: 10 };
        assert_eq!(costs.partition(0..6, 2, 1200).len(), 1);
        assert_eq!(costs.partition(0..6, 2, 1199), [0..3, 3..6]);
        assert_eq!(costs.partition(0..6, 2, 620), [0..3, 3..6]);
        assert_eq!(costs.partition(0..6, 2, 619), [0..2, 2..4, 4..6]);
        assert_eq!(costs.partition(1..6, 2, 500), [1..2, 2..4, 4..6]);
        assert_eq!(costs.partition(2..4, 9, 0), [2..3, 3..4]);
        assert!(costs.partition(5..5, 9, 0).is_empty());
    }
}
