//! Comparison with a sort.

use super::super::softmax::{Probabilities, SoftmaxParams};
use super::*;
use espalier_tensor::seeded_rng::SeededRng;

const NEG_INFINITY: f32 = f32::NEG_INFINITY;

/// Random values, with ties if `distinct` is small.
fn values_with_ties(count: usize, distinct: usize) -> Vec<f32> {
    let mut random = SeededRng::new(count as u64, &["largest"]);
    (0..count).map(|_| random.uniform_below(distinct) as f32 - 7.0).collect()
}

fn sorted(values: &[f32]) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(values.iter().copied()).collect();
    all.sort_by(|one, other| other.1.total_cmp(&one.1));
    all
}

#[test]
fn all_functions_agree_with_a_sort() {
    for (count, distinct) in [(1, 5), (15, 5), (16, 9), (33, 1), (1025, 50), (5000, 4), (20_000, 1_000_000)] {
        let values = values_with_ties(count, distinct);
        let sorted = sorted(&values);
        assert_eq!(argmax(&values), Some(sorted[0]), "{count} {distinct}");
        for n in [1, 2, 7, 20, 300, 4999].into_iter().filter(|n| *n < count) {
            assert_eq!(kth_largest(&values, n, &mut vec![9e9; 3]), sorted[n - 1].1, "{count} {distinct} {n}");
            assert_eq!(top_k(&values, n, &mut Vec::new()), sorted[..n], "{count} {distinct} {n}");
        }
        assert_eq!(top_k(&values, count + 3, &mut Vec::new()), sorted);
    }
}

#[test]
fn nan_and_infinities_are_skipped() {
    assert_eq!(argmax(&[]), None);
    assert_eq!(argmax(&[NEG_INFINITY; 40]), None);
    assert_eq!(argmax(&[f32::NAN; 40]), None);
    assert_eq!(argmax(&[1.0, f32::INFINITY]), None);
    let mut values = vec![f32::NAN; 40];
    (values[17], values[20], values[39]) = (-3.0, NEG_INFINITY, -2.0);
    assert_eq!(argmax(&values), Some((39, -2.0)));
    assert_eq!(kth_largest(&values, 2, &mut Vec::new()), -3.0);
    assert_eq!(kth_largest(&values, 3, &mut Vec::new()), NEG_INFINITY);
    assert_eq!(top_k(&values, 9, &mut Vec::new()), [(39, -2.0), (17, -3.0)]);
    assert_eq!((kth_largest(&values, 0, &mut Vec::new()), top_k(&values, 0, &mut Vec::new())), (NEG_INFINITY, vec![]));
}

#[test]
fn top_p_matches_a_sort() {
    for (seed, count, distinct, top_p) in
        [(1, 10, 3, 0.5), (2, 5000, 1, 0.3), (3, 30_000, 1_000_000, 0.999), (4, 30_000, 40, 0.62), (5, 9000, 9, 0.01)]
    {
        let mut random = SeededRng::new(seed, &["nucleus"]);
        // probabilities from 1 to e⁻²⁰
        let logits: Vec<f32> =
            (0..count).map(|_| random.uniform_below(distinct) as f32 / distinct as f32 * -20.0).collect();
        let (mut buffer, mut block_sums) = (logits, Vec::new());
        let softmax = SoftmaxParams { max_logit: 0.0, min_logit: f32::MIN, temperature: 1.0 };
        let mut probabilities = Probabilities::from_logits(&mut buffer, softmax, &mut block_sums);
        let mut sorted: Vec<(usize, f32)> = probabilities.values().iter().copied().enumerate().collect();
        sorted.sort_by(|one, other| other.1.total_cmp(&one.1));
        let target_mass = probabilities.total() * f64::from(top_p);
        let mut cumulative = 0.0;
        let in_nucleus = sorted.iter().take_while(|(_, probability)| {
            let is_included = cumulative < target_mass;
            cumulative += f64::from(*probability);
            is_included
        });
        let mut expected: Vec<usize> = in_nucleus.map(|(index, _)| *index).collect();
        expected.sort_unstable();
        probabilities.apply_top_p(top_p_threshold(
            probabilities.values(),
            probabilities.total(),
            top_p,
            &mut Vec::new(),
        ));
        let kept: Vec<usize> = (0..count).filter(|index| probabilities.values()[*index] > 0.0).collect();
        assert!(kept == expected, "{seed}: {} instead of {}", kept.len(), expected.len());
    }
}

#[test]
fn only_allowed_tokens_keep_their_logits() {
    for allowed in [|id: u32| id % 3 == 1, |id| id < 64, |id| id >= 128, |_| false] {
        let mask = TokenMask::from_fn(150, allowed);
        // logits may have padding beyond the vocabulary
        let mut logits = vec![1.0; 300];
        mask.apply(&mut logits);
        for (id, logit) in logits.into_iter().enumerate() {
            let expected = id < 150 && allowed(id as u32);
            assert_eq!((logit == 1.0, mask.is_allowed(id as u32)), (expected, expected), "{id}");
        }
    }
    let words = [0x8000_0001, u32::MAX, 0, 0, 0x0f];
    let expected = |id: u32| [0, 31, 128, 129].contains(&id) || (32..64).contains(&id);
    assert_eq!(TokenMask::from_u32_words(130, &words), TokenMask::from_fn(130, expected));
    assert_eq!(TokenMask::from_u32_words(20, &words), TokenMask::from_fn(20, |id| id == 0));
    let mut mask = TokenMask::from_fn(70, |_| true);
    mask.clear();
    assert_eq!(mask, TokenMask::new(70));
}
