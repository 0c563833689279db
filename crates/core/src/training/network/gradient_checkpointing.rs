//! Gradient checkpointing (Chen et al. 2016): partition of the layers into segments whose activations fit a memory budget. All
//! segments but the last are recomputed in the backward pass, with bit-identical results.

use crate::model::{BaseModel, Pooling};
use std::ops::Range;

/// Bytes of saved activations per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationCost {
    /// Activations that the backward pass of a layer reads.
    pub layer: u64,
    /// Output of a layer.
    pub boundary: u64,
}

impl ActivationCost {
    /// Estimate: for each linear map its input once and its output twice, before and after the operation that follows.
    pub fn of(base: &BaseModel, pooling: Pooling) -> Self {
        let sites = base.sites(pooling);
        let layer = sites.iter().filter(|info| info.site.layer == Some(0));
        let values_per_row: usize = layer.map(|info| info.in_features + 2 * info.out_features).sum();
        Self { layer: (4 * values_per_row) as u64, boundary: 4 * base.info().hidden_size as u64 }
    }

    /// Partitions the layers into as few segments as the budget allows, the last one of full size; single layers where even these
    /// exceed the budget.
    pub fn partition(self, layers: Range<usize>, rows: usize, budget: u64) -> Vec<Range<usize>> {
        let (count, rows) = (layers.len().max(1), rows as u64);
        let bytes_needed = |segments: usize| {
            let boundary_bytes = (segments as u64 - 1) * self.boundary;
            (count.div_ceil(segments) as u64 * self.layer + boundary_bytes).saturating_mul(rows)
        };
        let segment_count = (1..=count).find(|segments| bytes_needed(*segments) <= budget).unwrap_or(count);
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
