//! Tests of the whole sampler, and of bias and penalties.

use super::reference_tests::logits;
use super::*;

const NEG_INFINITY: f32 = f32::NEG_INFINITY;

fn greedy_params() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}

fn sample_once(params: &SamplingParams, logits: &[f32]) -> u32 {
    Sampler::new(params.clone(), &[], 0).sample(&mut logits.to_vec(), 0, None).unwrap().token_id
}

/// Relative frequency of each token.
fn sampled_frequencies(params: SamplingParams, logits: &[f32], draws: u64) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    let mut sampler = Sampler::new(params, &[], 0);
    for step in 0..draws {
        let id = sampler.sample(&mut logits.to_vec(), step, None).unwrap().token_id;
        counts[id as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn temperature_0_selects_the_argmax_and_the_lowest_id_on_ties() {
    assert_eq!(sample_once(&greedy_params(), &[1.0, 3.0, 2.0, 3.0]), 1);
    let mut many = vec![-5.0; 50_000];
    (many[40_001], many[49_999]) = (1.0, 1.0);
    assert_eq!(sample_once(&greedy_params(), &many), 40_001);
    let filtered = SamplingParams { top_p: 0.1, top_k: 1, min_p: 0.5, ..greedy_params() };
    assert_eq!(sample_once(&filtered, &many), 40_001);
    // A division by this temperature overflows.
    assert_eq!(sample_once(&SamplingParams { temperature: 1e-40, ..SamplingParams::default() }, &[1.0, 3.0, 2.0]), 1);
}

#[test]
fn generated_tokens_are_counted() {
    let mut sampler = Sampler::new(SamplingParams { frequency_penalty: 1.0, ..greedy_params() }, &[0, 0, 0], 0);
    let token_ids: Vec<u32> =
        (0..5).map(|step| sampler.sample(&mut [2.5, 1.0, 0.25], step, None).unwrap().token_id).collect();
    assert_eq!(token_ids, [0, 0, 1, 0, 2]);
    let mut sampler = Sampler::new(SamplingParams { repetition_penalty: 4.0, ..greedy_params() }, &[0, 7], 0);
    let token_ids: Vec<u32> =
        (0..3).map(|step| sampler.sample(&mut [2.5, 1.0, 0.75], step, None).unwrap().token_id).collect();
    assert_eq!(token_ids, [1, 2, 0]);
}

#[test]
fn masked_tokens_are_never_sampled() {
    let raw_logits = logits(1, 300);
    let mask = TokenMask::from_fn(300, |id| id % 7 == 3);
    // A bias does not unmask a token.
    let biased = SamplingParams { logit_bias: [(5, 100.0)].into(), ..SamplingParams::default() };
    for settings in
        [greedy_params(), SamplingParams::default(), biased, SamplingParams { top_p: 0.5, ..SamplingParams::default() }]
    {
        let mut sampler = Sampler::new(settings, &[], 0);
        for step in 0..200 {
            let sampled = sampler.sample(&mut raw_logits.clone(), step, Some(&mask)).unwrap();
            assert!(mask.is_allowed(sampled.token_id));
        }
        assert_eq!(sampler.sample(&mut raw_logits.clone(), 0, Some(&TokenMask::new(300))), None);
    }
}

#[test]
fn non_finite_logits_sample_nothing() {
    for settings in [greedy_params(), SamplingParams { logprobs: Some(3), ..SamplingParams::default() }] {
        for logits in [[f32::NAN; 20], [NEG_INFINITY; 20], [f32::INFINITY; 20]] {
            assert_eq!(Sampler::new(settings.clone(), &[], 0).sample(&mut logits.clone(), 0, None), None);
        }
        let sampled = Sampler::new(settings, &[], 0).sample(&mut [f32::NAN, NEG_INFINITY, 1.0, NEG_INFINITY], 0, None);
        assert_eq!(sampled.unwrap().token_id, 2);
    }
}

#[test]
fn samples_follow_the_model_distribution() {
    let probabilities = [0.5f64, 0.25, 0.15, 0.06, 0.04];
    let raw_logits = probabilities.map(|p| p.ln() as f32 + 3.0);
    let assert_close = |shares: Vec<f64>, expected: [f64; 5]| {
        for (frequency, expected) in shares.iter().zip(expected) {
            // four standard deviations
            assert!(
                (frequency - expected).abs() <= 4.0 * (expected * (1.0 - expected) / 20_000.0).sqrt(),
                "{shares:?}"
            );
        }
    };
    assert_close(sampled_frequencies(SamplingParams::default(), &raw_logits, 20_000), probabilities);
    let squared: f64 = probabilities.iter().map(|p| p * p).sum();
    let low_temperature = SamplingParams { temperature: 0.5, ..SamplingParams::default() };
    assert_close(sampled_frequencies(low_temperature, &raw_logits, 20_000), probabilities.map(|p| p * p / squared));
    let remaining = [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0, 0.0];
    for settings in [
        SamplingParams { top_k: 3, ..SamplingParams::default() },
        SamplingParams { min_p: 0.2, ..SamplingParams::default() },
        SamplingParams { top_p: 0.8, ..SamplingParams::default() },
        // after min-p: 0.5, 0.25 and 0.15 of 0.9
        SamplingParams { top_p: 0.85, min_p: 0.29, ..SamplingParams::default() },
    ] {
        assert_close(sampled_frequencies(settings, &raw_logits, 20_000), remaining);
    }
}

#[test]
fn a_uniform_large_vocabulary_is_sampled_evenly() {
    let mut counts = [0.0; 4];
    let mut sampler = Sampler::new(SamplingParams::default(), &[], 0);
    for step in 0..2000 {
        let id = sampler.sample(&mut vec![0.5; 5000], step, None).unwrap().token_id;
        counts[id as usize / 1250] += 1.0;
    }
    for count in counts {
        assert!((count - 500.0f64).abs() < 4.0 * (2000.0f64 * 0.25 * 0.75).sqrt(), "{counts:?}");
    }
}

#[test]
fn on_ties_top_k_keeps_all_and_top_p_the_lowest_ids() {
    let raw_logits = [0.0, 1.0, 1.0, 1.0, 0.0];
    let sampled_ids = |settings| -> Vec<u32> {
        let frequencies = sampled_frequencies(settings, &raw_logits, 300);
        (0..5).filter(|id| frequencies[*id as usize] > 0.0).collect()
    };
    assert_eq!(sampled_ids(SamplingParams { top_k: 2, ..SamplingParams::default() }), [1, 2, 3]);
    assert_eq!(sampled_ids(SamplingParams { top_p: 0.4, ..SamplingParams::default() }), [1, 2]);
    assert_eq!(sampled_ids(SamplingParams { top_p: 1e-9, ..SamplingParams::default() }), [1]);
    assert_eq!(sampled_ids(SamplingParams { min_p: 1.0, ..SamplingParams::default() }), [1, 2, 3]);
}

#[test]
fn a_sample_depends_on_seed_step_and_choice_index_only() {
    let raw_logits = logits(5, 500);
    let sampled_ids = |seed, choice_index| -> Vec<u32> {
        let settings = SamplingParams { seed, temperature: 2.0, top_p: 0.95, ..SamplingParams::default() };
        let mut sampler = Sampler::new(settings, &[1, 2, 3], choice_index);
        (0..20).map(|step| sampler.sample(&mut raw_logits.clone(), step, None).unwrap().token_id).collect()
    };
    assert_eq!(sampled_ids(1, 0), sampled_ids(1, 0));
    assert_ne!(sampled_ids(1, 0), sampled_ids(2, 0));
    assert_ne!(sampled_ids(1, 0), sampled_ids(1, 1));
    // beside another sampler, in reverse order, and after samples from other logits
    let settings = SamplingParams { seed: 1, temperature: 2.0, top_p: 0.95, ..SamplingParams::default() };
    let mut sampler = Sampler::new(settings.clone(), &[1, 2, 3], 0);
    let mut other = Sampler::new(settings, &[], 1);
    for (step, id) in (0..20u32).zip(sampled_ids(1, 0)).rev() {
        let step = u64::from(step);
        other.sample(&mut logits(step, 70), step, None).unwrap();
        sampler.sample(&mut logits(step, 3000), step + 99, None).unwrap();
        assert_eq!(sampler.sample(&mut raw_logits.clone(), step, None).unwrap().token_id, id);
    }
}

#[test]
fn random_numbers_of_steps_and_choices_are_uniform() {
    let rng_streams =
        (0..100).map(|choice_index| Sampler::new(SamplingParams::default(), &[], choice_index).rng_stream);
    let numbers: Vec<f64> = rng_streams.flat_map(|stream| (0..100).map(move |step| uniform_at(stream, step))).collect();
    assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
    for decile in 0..10 {
        let inside = numbers.iter().filter(|number| (**number * 10.0) as usize == decile).count() as f64;
        assert!((inside - 1000.0).abs() < 4.0 * 30.0, "{decile}: {inside}");
    }
}

#[test]
fn logprobs_are_computed_before_sampling_params_apply() {
    let raw_logits = [3.0, 1.0, 2.0, 1.0, NEG_INFINITY];
    let log_sum_exp = raw_logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln() as f32;
    let settings = SamplingParams {
        temperature: 0.5,
        top_k: 1,
        repetition_penalty: 1.5,
        logit_bias: [(0, -50.0), (2, -50.0)].into(),
        logprobs: Some(3),
        ..SamplingParams::default()
    };
    let mask = TokenMask::from_fn(5, |id| id != 1);
    let sampled = Sampler::new(settings, &[0], 0).sample(&mut raw_logits.clone(), 0, Some(&mask)).unwrap();
    assert_eq!(sampled.token_id, 3, "the only token that is neither masked nor biased");
    let logprobs = sampled.logprobs.unwrap();
    assert!((logprobs.token - (1.0 - log_sum_exp)).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2, 1]);
    assert!((logprobs.top[0].1 - (3.0 - log_sum_exp)).abs() < 1e-6);

    let only_sampled = SamplingParams { logprobs: Some(0), ..greedy_params() };
    let logprobs =
        Sampler::new(only_sampled, &[], 0).sample(&mut raw_logits.clone(), 0, None).unwrap().logprobs.unwrap();
    assert_eq!((logprobs.top.len(), (logprobs.token - (3.0 - log_sum_exp)).abs() < 1e-6), (0, true));
    let all = SamplingParams { logprobs: Some(20), ..greedy_params() };
    let logprobs = Sampler::new(all, &[], 0).sample(&mut raw_logits.clone(), 0, None).unwrap().logprobs.unwrap();
    assert_eq!(logprobs.top.len(), 4, "a logit of −∞ has no logprob");
}

const LOGITS: [f32; 6] = [3.0, -1.0, 0.0, 2.0, -4.0, 1.0];

fn penalized(params: &SamplingParams, prompt: &[u32], output: &[u32]) -> Vec<f32> {
    let mut token_counts = TokenCounts::new(params, prompt);
    output.iter().for_each(|id| token_counts.record(*id));
    let mut logits = LOGITS;
    token_counts.apply(params, &mut logits);
    logits.to_vec()
}

#[test]
fn repetition_penalty_divides_positive_logits_and_multiplies_others_once() {
    let settings = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::default() };
    // 0 and 1 are in the prompt, 3 in the output, 4 in both several times; 99 has no logit
    assert_eq!(penalized(&settings, &[0, 1, 1, 4, 99], &[3, 4, 4]), [1.5, -2.0, 0.0, 1.0, -8.0, 1.0]);
}

#[test]
fn repetition_penalty_matches_transformers() {
    // RepetitionPenaltyLogitsProcessor(1.3)(tensor([[0, 1, 3, 4]]), tensor([[3., -1, 0, 2, -4, 1]]))
    let expected = [2.307_692_3, -1.3, 0.0, 1.538_461_6, -5.2, 1.0];
    let settings = SamplingParams { repetition_penalty: 1.3, ..SamplingParams::default() };
    assert_eq!(penalized(&settings, &[0, 1], &[3, 4]), expected);
}

#[test]
fn presence_applies_once_frequency_per_occurrence_and_neither_to_the_prompt() {
    let presence = SamplingParams { presence_penalty: 0.5, ..SamplingParams::default() };
    assert_eq!(penalized(&presence, &[0, 1, 2], &[3, 5, 5, 5]), [3.0, -1.0, 0.0, 1.5, -4.0, 0.5]);
    let frequency = SamplingParams { frequency_penalty: 0.5, ..SamplingParams::default() };
    assert_eq!(penalized(&frequency, &[0, 1, 2], &[3, 5, 5, 5]), [3.0, -1.0, 0.0, 1.5, -4.0, -0.5]);
    let reward = SamplingParams { frequency_penalty: -1.0, presence_penalty: -0.25, ..SamplingParams::default() };
    assert_eq!(penalized(&reward, &[], &[3, 5, 5, 5]), [3.0, -1.0, 0.0, 3.25, -4.0, 4.25]);
}

#[test]
fn bias_is_applied_first_then_repetition_then_presence_and_frequency() {
    let settings = SamplingParams {
        repetition_penalty: 2.0,
        presence_penalty: 0.25,
        frequency_penalty: 0.5,
        logit_bias: [(1, 3.0), (5, -3.0), (77, 1.0)].into(),
        ..SamplingParams::default()
    };
    // 1: (−1 + 3) / 2 − 2·0.5 − 0.25; 5: (1 − 3) · 2
    assert_eq!(penalized(&settings, &[5], &[1, 1]), [3.0, -0.25, 0.0, 2.0, -4.0, -4.0]);
}

#[test]
fn masked_tokens_stay_masked() {
    let settings =
        SamplingParams { repetition_penalty: 0.5, logit_bias: [(0, 100.0)].into(), ..SamplingParams::default() };
    let mut logits = [f32::NEG_INFINITY, 1.0];
    TokenCounts::new(&settings, &[0]).apply(&settings, &mut logits);
    assert_eq!(logits, [f32::NEG_INFINITY, 1.0]);
}
