//! Shuffle of an epoch, and micro-batches: functions of the seed and the data, so that a resumed run sees the same examples.
//! [`ForwardInput`] is what a forward pass reads: tokens, and features of the frozen base where these are cached.

use crate::model::{FirstTrainableLayer, Tokens};
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{RaggedLayout, Tensor};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Order of the examples in an epoch, counted from 0.
pub fn shuffled_epoch(examples: &[usize], seed: u64, epoch: u64) -> Vec<usize> {
    let mut order = examples.to_vec();
    SeededRng::new(seed, &["epoch", &epoch.to_string()]).shuffle(&mut order);
    order
}

/// Partitions a batch into micro-batches of about `tokens` tokens each, by longest-processing-time scheduling (Graham 1969): the
/// longest examples first, each into the least filled micro-batch. Micro-batches are not padded. Their order is the order in which
/// gradients are summed.
pub fn micro_batches(batch: &[usize], lengths: &[usize], tokens: usize) -> Vec<Vec<usize>> {
    let mut sorted = batch.to_vec();
    sorted.sort_by_key(|index| (Reverse(lengths[*index]), *index));
    let total: usize = sorted.iter().map(|index| lengths[*index]).sum();
    let shares = micro_batch_shares(total.div_ceil(tokens));
    let mut micro_batches: Vec<Vec<usize>> = vec![Vec::new(); shares.len()];
    let mut least_filled: BinaryHeap<Reverse<(usize, usize)>> =
        (0..shares.len()).map(|index| Reverse((0, index))).collect();
    for index in sorted {
        if let Some(mut slot) = least_filled.peek_mut() {
            let Reverse((filled, micro_batch)) = &mut *slot;
            micro_batches[*micro_batch].push(index);
            *filled += lengths[index] * FULL_SHARE / shares[*micro_batch];
        }
    }
    micro_batches.retain(|micro_batch| !micro_batch.is_empty());
    micro_batches
}

/// Share of a micro-batch of full size.
const FULL_SHARE: usize = 2;

/// Shares of about `count` micro-batches. Their number before halving is 1, 2 or a multiple of 4, so that the threads finish together.
/// The last two are halved, so that a delayed thread leaves small micro-batches to the others.
fn micro_batch_shares(count: usize) -> Vec<usize> {
    let full_count = match count {
        few @ 0..3 => few.max(1),
        many => many.next_multiple_of(4),
    };
    let halved_count = full_count.min(2);
    [vec![FULL_SHARE; full_count - halved_count], vec![FULL_SHARE / 2; 2 * halved_count]].concat()
}

/// Sequences of a micro-batch.
pub struct ForwardInput {
    pub tokens: Vec<Arc<Tokens>>,
    pub cached: Option<CachedRows>,
}

impl ForwardInput {
    /// Sequences without cached features.
    pub fn from_tokens(tokens: Vec<Arc<Tokens>>) -> Self {
        Self { tokens, cached: None }
    }
}

/// Cached rows of the frozen base, sequence by sequence: the input of `layer`.
pub struct CachedRows {
    pub rows: Tensor,
    pub layout: Arc<RaggedLayout>,
    pub layer: FirstTrainableLayer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_hold_every_example_once_and_meet_their_target_size() {
        let lengths: Vec<usize> = (0..32).map(|index| 8 + index % 13).collect();
        let batch: Vec<usize> = (0..32).rev().collect();
        let found = micro_batches(&batch, &lengths, 112);
        let mut all: Vec<usize> = found.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..32).collect::<Vec<_>>());
        let tokens: Vec<usize> =
            found.iter().map(|micro_batch| micro_batch.iter().map(|index| lengths[*index]).sum()).collect();
        let even = lengths.iter().sum::<usize>() / 8;
        for (filled, share) in tokens.iter().zip([2, 2, 1, 1, 1, 1]) {
            assert!(filled.abs_diff(even * share) <= 8, "{tokens:?}");
        }
    }

    #[test]
    fn micro_batch_counts_divide_evenly_among_threads() {
        let lengths = vec![10; 100];
        let micro_batch_count = |texts: usize| micro_batches(&(0..texts).collect::<Vec<_>>(), &lengths, 100).len();
        assert_eq!([1, 10, 11, 20, 21, 40, 41].map(micro_batch_count), [1, 2, 4, 4, 6, 6, 10]);
        assert_eq!(micro_batches(&[0, 1, 2], &[500, 500, 500], 100).len(), 3, "a text is never split");
    }

    #[test]
    fn an_epoch_is_a_permutation_that_the_seed_decides() {
        let examples: Vec<usize> = (10..50).collect();
        let mut order = shuffled_epoch(&examples, 1, 0);
        assert_ne!(order, shuffled_epoch(&examples, 1, 1));
        assert_eq!(order, shuffled_epoch(&examples, 1, 0));
        order.sort_unstable();
        assert_eq!(order, examples);
    }
}
