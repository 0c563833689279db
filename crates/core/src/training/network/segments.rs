//! Which layers a training step remembers at once: all of them, or, where that would be too much memory, some, and the others are
//! computed again on the way back (Chen et al. 2016).
//!
//! The result is the same to the bit. Knows nothing of tapes.

use crate::model::{Base, Pooling};
use std::ops::Range;

/// Bytes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// What the way back through a layer needs.
    pub layer: u64,
    /// What goes from one layer to the next.
    pub border: u64,
}

impl Costs {
    /// About: of every map what goes in once, and what comes out twice, as it is and as what follows makes of it.
    pub fn of(base: &Base, pooling: Pooling) -> Self {
        let sites = base.sites(pooling);
        let layer = sites.iter().filter(|info| info.site.layer == Some(0));
        let numbers: usize = layer.map(|info| info.input + 2 * info.output).sum();
        Self { layer: (4 * numbers) as u64, border: 4 * base.info().hidden_size as u64 }
    }

    /// The layers in as few neighbouring pieces as keep to the budget, the last ones together; one by one where none does.
    pub fn cut(self, layers: Range<usize>, rows: usize, budget: u64) -> Vec<Range<usize>> {
        let (count, rows) = (layers.len().max(1), rows as u64);
        let needed = |pieces: usize| {
            let borders = (pieces as u64 - 1) * self.border;
            (count.div_ceil(pieces) as u64 * self.layer + borders).saturating_mul(rows)
        };
        let pieces = (1..=count).find(|pieces| needed(*pieces) <= budget).unwrap_or(count);
        let size = count.div_ceil(pieces);
        let mut cut = Vec::new();
        let mut end = layers.end;
        while end > layers.start {
            let start = end.saturating_sub(size).max(layers.start);
            cut.push(start..end);
            end = start;
        }
        cut.reverse();
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_cut_as_little_as_the_budget_asks_for() {
        let costs = Costs { layer: 100, border: 10 };
        assert_eq!(costs.cut(0..6, 2, 1200).len(), 1);
        assert_eq!(costs.cut(0..6, 2, 1199), [0..3, 3..6]);
        assert_eq!(costs.cut(0..6, 2, 620), [0..3, 3..6]);
        assert_eq!(costs.cut(0..6, 2, 619), [0..2, 2..4, 4..6]);
        assert_eq!(costs.cut(1..6, 2, 500), [1..2, 2..4, 4..6]);
        assert_eq!(costs.cut(2..4, 9, 0), [2..3, 3..4]);
        assert!(costs.cut(5..5, 9, 0).is_empty());
    }
}
