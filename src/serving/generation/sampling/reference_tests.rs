//! Comparison with transformers, torch and candle-transformers.

use super::*;
use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

/// Logits from −8 to 8 with 24 bits of `mix64`, reproducible in Python.
pub fn logits(seed: u64, count: u64) -> Vec<f32> {
    (0..count).map(|id| (mix64(seed * 1_000_003 + id) >> 40) as f32 / (1 << 20) as f32 - 8.0).collect()
}

/// Temperature, top-p, top-k and min-p.
type FilterParams = (f32, f32, u32, f32);

/// The tokens with a probability above 0.
fn remaining_tokens((temperature, top_p, top_k, min_p): FilterParams, logits: &mut [f32]) -> Vec<u32> {
    let mut sampler =
        Sampler::new(SamplingParams { temperature, top_p, top_k, min_p, ..SamplingParams::default() }, &[], 0);
    let (_, max_logit) = filters::argmax(logits).unwrap();
    sampler.sample_from(logits, max_logit, 0);
    (0..).zip(logits.iter()).filter(|(_, probability)| **probability > 0.0).map(|(id, _)| id).collect()
}

/// From transformers 5: the ids of `logits(seed, 40)` that TemperatureLogitsWarper, MinPLogitsWarper, TopKLogitsWarper and
/// TopPLogitsWarper, in this order, leave finite.
#[test]
fn remaining_tokens_match_transformers() {
    let cases: [(u64, FilterParams, &[u32]); 12] = [
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
    for (seed, params, ids) in cases {
        assert_eq!(remaining_tokens(params, &mut logits(seed, 40)), ids, "{seed}: {params:?}");
    }
}

/// From transformers 5: number and sum of the ids left of `logits(seed, 20_000)`. The distribution is so flat that the top-p
/// search bisects.
#[test]
fn remaining_tokens_of_a_flat_distribution_match_transformers() {
    let cases: [(u64, FilterParams, usize, u64); 5] = [
        (21, (2.0, 0.9, 0, 0.0), 5751, 57_867_758),
        (22, (2.0, 0.99, 0, 0.0), 11_399, 114_189_975),
        (23, (1.0, 1.0, 700, 0.0), 700, 7_247_064),
        (24, (2.0, 1.0, 0, 0.05), 7472, 75_037_834),
        (25, (2.0, 0.6, 3000, 0.01), 1364, 13_293_700),
    ];
    for (seed, params, count, sum) in cases {
        let ids = remaining_tokens(params, &mut logits(seed, 20_000));
        assert_eq!((ids.len(), ids.into_iter().map(u64::from).sum()), (count, sum), "{seed}: {params:?}");
    }
}

/// From torch: `tensor(logits(13, 6)).log_softmax(-1)`.
#[test]
fn logprobs_match_torch() {
    let expected = [-4.661_107_5, -0.888_647_4, -5.911_512, -6.740_508_6, -5.860_06, -0.557_583_2];
    let mut sampler = Sampler::new(SamplingParams { logprobs: Some(6), ..SamplingParams::default() }, &[], 0);
    let top = sampler.sample(&mut logits(13, 6), 0, None).unwrap().logprobs.unwrap().top;
    assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [5, 1, 0, 4, 2, 3]);
    for (id, logprob) in top {
        assert!((logprob - expected[id as usize]).abs() < 2e-6, "{id}: {logprob}");
    }
}

/// Draws of candle's `LogitsProcessor` have the frequencies that the sampler computes.
#[test]
fn probabilities_match_the_draws_of_candle() {
    const DRAWS: u32 = 20_000;
    let all = |temperature| Sampling::All { temperature };
    let cases: [(u64, FilterParams, Sampling); 4] = [
        (31, (1.0, 1.0, 0, 0.0), all(1.0)),
        (32, (0.5, 1.0, 4, 0.0), Sampling::TopK { k: 4, temperature: 0.5 }),
        (33, (2.0, 0.8, 0, 0.0), Sampling::TopP { p: f64::from(0.8f32), temperature: 2.0 }),
        (34, (2.0, 1.0, 0, 0.0), all(2.0)),
    ];
    for (seed, params, sampling) in cases {
        let mut probabilities = logits(seed, 12);
        let drawn_from = Tensor::new(probabilities.as_slice(), &Device::Cpu).unwrap();
        remaining_tokens(params, &mut probabilities);
        let total: f32 = probabilities.iter().sum();
        let mut oracle = LogitsProcessor::from_sampling(seed, sampling);
        let mut counts = [0u32; 12];
        for _ in 0..DRAWS {
            counts[oracle.sample(&drawn_from).unwrap() as usize] += 1;
        }
        for (id, (count, probability)) in counts.into_iter().zip(probabilities).enumerate() {
            let expected = f64::from(probability / total);
            // Five standard deviations of a binomial distribution.
            let bound = 5.0 * (expected * (1.0 - expected) * f64::from(DRAWS)).sqrt();
            let difference = (f64::from(count) - expected * f64::from(DRAWS)).abs();
            assert!(
                difference <= bound,
                "{params:?}: token {id} was drawn {count} times, its probability is {expected}"
            );
        }
    }
}
