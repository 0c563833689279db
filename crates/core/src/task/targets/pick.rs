//! Targets of some of the examples.

use super::Targets;
use std::sync::Arc;

impl Targets {
    /// Some examples', in this order.
    pub fn pick(&self, indices: &[usize]) -> Self {
        match self {
            Self::Classes { classes, count } => Self::Classes { classes: some(classes, indices), count: *count },
            Self::Sets { sets, count } => Self::Sets { sets: some(sets, indices), count: *count },
            Self::Values { values, scale } => Self::Values { values: some(values, indices), scale: *scale },
            Self::Tags { tags, read, count } => {
                Self::Tags { tags: some(tags, indices), read: some(read, indices), count: *count }
            }
            Self::Scores { scores, scale } => Self::Scores { scores: some(scores, indices), scale: *scale },
            Self::Ranked { texts, belonging } => {
                Self::Ranked { texts: some(texts, indices), belonging: Arc::clone(belonging) }
            }
            Self::Preferred { lengths, reference, config } => Self::Preferred {
                lengths: some(lengths, indices),
                reference: some(reference, indices),
                config: config.clone(),
            },
            Self::Words { counts } => Self::Words { counts: some(counts, indices) },
        }
    }
}

/// Those of `all`, in this order.
fn some<T: Clone>(all: &[T], indices: &[usize]) -> Vec<T> {
    indices.iter().map(|index| all[*index].clone()).collect()
}
