//! The tokens that are left for a draw are those that transformers leaves.

use super::weights::{Scale, Weights};
use super::*;

/// 24 bits of `mix`, from −8 to 8: the same numbers can be had in Python.
pub fn logits(seed: u64, count: u64) -> Vec<f32> {
    (0..count).map(|id| (mix(seed * 1_000_003 + id) >> 40) as f32 / (1 << 20) as f32 - 8.0).collect()
}

/// A request, without what it leaves as it is.
type Asked = (f32, f32, u32, f32);

fn left((temperature, top_p, top_k, min_p): Asked, logits: &mut [f32]) -> Vec<u32> {
    let mut sampler = Sampler::new(Settings { temperature, top_p, top_k, min_p, ..Settings::default() }, &[], 0);
    let (_, largest) = largest::first(logits).unwrap();
    sampler.draw(logits, largest, 0);
    (0..).zip(logits.iter()).filter(|(_, weight)| **weight > 0.0).map(|(id, _)| id).collect()
}

/// transformers 5: of `logits(seed, 40)`, where TemperatureLogitsWarper, MinPLogitsWarper, TopKLogitsWarper and
/// TopPLogitsWarper in this order leave numbers that are finite.
#[test]
fn the_tokens_left_are_those_of_transformers() {
    let cases: [(u64, Asked, &[u32]); 12] = [
        (1, (1.0, 0.9, 0, 0.0), &[1, 6, 7, 9, 13, 30]),
        (2, (0.7, 0.5, 0, 0.0), &[14, 20, 28, 30]),
        (3, (1.5, 0.95, 0, 0.0), &[4, 5, 7, 8, 9, 10, 12, 15, 16, 18, 21, 27, 38]),
        (4, (1.0, 1.0, 5, 0.0), &[1, 20, 30, 33, 36]),
        (5, (1.0, 1.0, 1, 0.0), &[7]),
        (6, (1.0, 1.0, 0, 0.1), &[1, 7, 16, 25, 34]),
        (7, (2.0, 1.0, 0, 0.3), &[9, 18, 19, 20, 22, 28, 31, 34, 35]),
        (8, (1.0, 0.8, 10, 0.0), &[10, 23, 29, 31]),
        (9, (1.3, 0.9, 12, 0.05), &[4, 15, 16, 18, 28, 32, 38]),
        (10, (2.0, 0.7, 20, 0.02), &[2, 5, 25, 30, 31, 33]),
        (11, (1.0, 0.1, 0, 0.0), &[36]),
        (12, (0.3, 0.99, 0, 0.0), &[0, 1, 12, 18, 19]),
    ];
    for (seed, asked, ids) in cases {
        assert_eq!(left(asked, &mut logits(seed, 40)), ids, "{seed}: {asked:?}");
    }
}

/// The same of `logits(seed, 20_000)`, so flat that the search for the nucleus has to narrow: how many, and their sum.
#[test]
fn many_tokens_left_are_those_of_transformers() {
    let cases: [(u64, Asked, usize, u64); 5] = [
        (21, (2.0, 0.9, 0, 0.0), 5751, 57_867_758),
        (22, (2.0, 0.99, 0, 0.0), 11_399, 114_189_975),
        (23, (1.0, 1.0, 700, 0.0), 700, 7_247_064),
        (24, (2.0, 1.0, 0, 0.05), 7472, 75_037_834),
        (25, (2.0, 0.6, 3000, 0.01), 1364, 13_293_700),
    ];
    for (seed, asked, count, sum) in cases {
        let ids = left(asked, &mut logits(seed, 20_000));
        assert_eq!((ids.len(), ids.into_iter().map(u64::from).sum()), (count, sum), "{seed}: {asked:?}");
    }
}

/// `tensor(logits(13, 6)).log_softmax(-1)`
#[test]
fn logprobs_are_those_of_torch() {
    let theirs = [-4.661_107_5, -0.888_647_4, -5.911_512, -6.740_508_6, -5.860_06, -0.557_583_2];
    let mut sampler = Sampler::new(Settings { logprobs: Some(6), ..Settings::default() }, &[], 0);
    let top = sampler.choose(&mut logits(13, 6), 0, None).unwrap().logprobs.unwrap().top;
    assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [5, 1, 0, 4, 2, 3]);
    for (id, logprob) in top {
        assert!((logprob - theirs[id as usize]).abs() < 2e-6, "{id}: {logprob}");
    }
}

#[test]
fn a_nucleus_is_that_of_a_sort_whatever_the_weights() {
    for (seed, count, different, share) in
        [(1, 10, 3, 0.5), (2, 5000, 1, 0.3), (3, 30_000, 1_000_000, 0.999), (4, 30_000, 40, 0.62), (5, 9000, 9, 0.01)]
    {
        let mut random = Random::new(seed, &["nucleus"]);
        // from one to e⁻²⁰
        let logits: Vec<f32> = (0..count).map(|_| random.below(different) as f32 / different as f32 * -20.0).collect();
        let (mut given, mut sums) = (logits, Vec::new());
        let scale = Scale { largest: 0.0, floor: f32::MIN, temperature: 1.0 };
        let mut weights = Weights::of(&mut given, scale, &mut sums);
        let mut sorted: Vec<(usize, f32)> = weights.values().iter().copied().enumerate().collect();
        sorted.sort_by(|one, other| other.1.total_cmp(&one.1));
        let goal = weights.total() * f64::from(share);
        let mut before = 0.0;
        let inside = sorted.iter().take_while(|(_, weight)| {
            let is_inside = before < goal;
            before += f64::from(*weight);
            is_inside
        });
        let mut inside: Vec<usize> = inside.map(|(place, _)| *place).collect();
        inside.sort_unstable();
        weights.keep(nucleus::find(weights.values(), weights.total(), share, &mut Vec::new()));
        let kept: Vec<usize> = (0..count).filter(|place| weights.values()[*place] > 0.0).collect();
        assert!(kept == inside, "{seed}: {} and {}", kept.len(), inside.len());
    }
}
