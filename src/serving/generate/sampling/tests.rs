//! Choices as a caller sees them.

use super::reference::logits;
use super::*;

const NONE: f32 = f32::NEG_INFINITY;

fn greedy() -> Settings {
    Settings { temperature: 0.0, ..Settings::default() }
}

fn choose(settings: &Settings, logits: &[f32]) -> u32 {
    Sampler::new(settings.clone(), &[], 0).choose(&mut logits.to_vec(), 0, None).unwrap().id
}

/// How often each of `logits` is drawn.
fn shares(settings: Settings, logits: &[f32], draws: u64) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    let mut sampler = Sampler::new(settings, &[], 0);
    for step in 0..draws {
        let id = sampler.choose(&mut logits.to_vec(), step, None).unwrap().id;
        counts[id as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn at_temperature_0_the_likeliest_is_taken_and_of_equals_the_lowest_id() {
    assert_eq!(choose(&greedy(), &[1.0, 3.0, 2.0, 3.0]), 1);
    let mut many = vec![-5.0; 50_000];
    (many[40_001], many[49_999]) = (1.0, 1.0);
    assert_eq!(choose(&greedy(), &many), 40_001);
    let filtered = Settings { top_p: 0.1, top_k: 1, min_p: 0.5, ..greedy() };
    assert_eq!(choose(&filtered, &many), 40_001);
    // So little as to overflow a division.
    assert_eq!(choose(&Settings { temperature: 1e-40, ..Settings::default() }, &[1.0, 3.0, 2.0]), 1);
}

#[test]
fn what_has_been_said_is_counted() {
    let mut sampler = Sampler::new(Settings { frequency_penalty: 1.0, ..greedy() }, &[0, 0, 0], 0);
    let said: Vec<u32> = (0..5).map(|step| sampler.choose(&mut [2.5, 1.0, 0.25], step, None).unwrap().id).collect();
    assert_eq!(said, [0, 0, 1, 0, 2]);
    let mut sampler = Sampler::new(Settings { repetition_penalty: 4.0, ..greedy() }, &[0, 7], 0);
    let said: Vec<u32> = (0..3).map(|step| sampler.choose(&mut [2.5, 1.0, 0.75], step, None).unwrap().id).collect();
    assert_eq!(said, [1, 2, 0]);
}

#[test]
fn what_is_not_allowed_is_never_said() {
    let numbers = logits(1, 300);
    let mask = Mask::of(300, |id| id % 7 == 3);
    // A bias does not make allowed what is not.
    let biased = Settings { logit_bias: [(5, 100.0)].into(), ..Settings::default() };
    for settings in [greedy(), Settings::default(), biased, Settings { top_p: 0.5, ..Settings::default() }] {
        let mut sampler = Sampler::new(settings, &[], 0);
        for step in 0..200 {
            let choice = sampler.choose(&mut numbers.clone(), step, Some(&mask)).unwrap();
            assert!(mask.allows(choice.id));
        }
        assert_eq!(sampler.choose(&mut numbers.clone(), 0, Some(&Mask::new(300))), None);
    }
}

#[test]
fn logits_that_are_no_numbers_give_no_choice() {
    for settings in [greedy(), Settings { logprobs: Some(3), ..Settings::default() }] {
        for logits in [[f32::NAN; 20], [NONE; 20], [f32::INFINITY; 20]] {
            assert_eq!(Sampler::new(settings.clone(), &[], 0).choose(&mut logits.clone(), 0, None), None);
        }
        let choice = Sampler::new(settings, &[], 0).choose(&mut [f32::NAN, NONE, 1.0, NONE], 0, None);
        assert_eq!(choice.unwrap().id, 2);
    }
}

#[test]
fn draws_have_the_distribution_of_the_model() {
    let probabilities = [0.5f64, 0.25, 0.15, 0.06, 0.04];
    let numbers = probabilities.map(|p| p.ln() as f32 + 3.0);
    let near = |shares: Vec<f64>, right: [f64; 5]| {
        for (share, right) in shares.iter().zip(right) {
            // four standard deviations
            assert!((share - right).abs() <= 4.0 * (right * (1.0 - right) / 20_000.0).sqrt(), "{shares:?}");
        }
    };
    near(shares(Settings::default(), &numbers, 20_000), probabilities);
    let squared: f64 = probabilities.iter().map(|p| p * p).sum();
    let cold = Settings { temperature: 0.5, ..Settings::default() };
    near(shares(cold, &numbers, 20_000), probabilities.map(|p| p * p / squared));
    let left = [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0, 0.0];
    for settings in [
        Settings { top_k: 3, ..Settings::default() },
        Settings { min_p: 0.2, ..Settings::default() },
        Settings { top_p: 0.8, ..Settings::default() },
        // the shares after min-p: 0.5, 0.25, 0.15 of 0.9
        Settings { top_p: 0.85, min_p: 0.29, ..Settings::default() },
    ] {
        near(shares(settings, &numbers, 20_000), left);
    }
}

#[test]
fn a_large_vocabulary_is_drawn_from_evenly() {
    let mut counts = [0.0; 4];
    let mut sampler = Sampler::new(Settings::default(), &[], 0);
    for step in 0..2000 {
        let id = sampler.choose(&mut vec![0.5; 5000], step, None).unwrap().id;
        counts[id as usize / 1250] += 1.0;
    }
    for count in counts {
        assert!((count - 500.0f64).abs() < 4.0 * (2000.0f64 * 0.25 * 0.75).sqrt(), "{counts:?}");
    }
}

#[test]
fn of_equals_at_the_edge_top_k_keeps_all_and_top_p_the_lowest_ids() {
    let numbers = [0.0, 1.0, 1.0, 1.0, 0.0];
    let drawn = |settings| -> Vec<u32> {
        let shares = shares(settings, &numbers, 300);
        (0..5).filter(|id| shares[*id as usize] > 0.0).collect()
    };
    assert_eq!(drawn(Settings { top_k: 2, ..Settings::default() }), [1, 2, 3]);
    assert_eq!(drawn(Settings { top_p: 0.4, ..Settings::default() }), [1, 2]);
    assert_eq!(drawn(Settings { top_p: 1e-9, ..Settings::default() }), [1]);
    assert_eq!(drawn(Settings { min_p: 1.0, ..Settings::default() }), [1, 2, 3]);
}

#[test]
fn a_draw_is_a_function_of_seed_step_and_choice_alone() {
    let numbers = logits(5, 500);
    let text = |seed, choice| -> Vec<u32> {
        let settings = Settings { seed, temperature: 2.0, top_p: 0.95, ..Settings::default() };
        let mut sampler = Sampler::new(settings, &[1, 2, 3], choice);
        (0..20).map(|step| sampler.choose(&mut numbers.clone(), step, None).unwrap().id).collect()
    };
    assert_eq!(text(1, 0), text(1, 0));
    assert_ne!(text(1, 0), text(2, 0));
    assert_ne!(text(1, 0), text(1, 1));
    // in company, backwards, and by a sampler that has chosen for other logits before
    let settings = Settings { seed: 1, temperature: 2.0, top_p: 0.95, ..Settings::default() };
    let mut sampler = Sampler::new(settings.clone(), &[1, 2, 3], 0);
    let mut other = Sampler::new(settings, &[], 1);
    for (step, id) in (0..20u32).zip(text(1, 0)).rev() {
        let step = u64::from(step);
        other.choose(&mut logits(step, 70), step, None).unwrap();
        sampler.choose(&mut logits(step, 3000), step + 99, None).unwrap();
        assert_eq!(sampler.choose(&mut numbers.clone(), step, None).unwrap().id, id);
    }
}

#[test]
fn the_numbers_of_steps_and_choices_are_spread_evenly() {
    let streams = (0..100).map(|choice| Sampler::new(Settings::default(), &[], choice).stream);
    let numbers: Vec<f64> = streams.flat_map(|stream| (0..100).map(move |step| uniform(stream, step))).collect();
    assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
    for tenth in 0..10 {
        let inside = numbers.iter().filter(|number| (**number * 10.0) as usize == tenth).count() as f64;
        assert!((inside - 1000.0).abs() < 4.0 * 30.0, "{tenth}: {inside}");
    }
}

#[test]
fn logprobs_are_the_models_own_whatever_is_asked() {
    let numbers = [3.0, 1.0, 2.0, 1.0, NONE];
    let total = numbers.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln() as f32;
    let settings = Settings {
        temperature: 0.5,
        top_k: 1,
        repetition_penalty: 1.5,
        logit_bias: [(0, -50.0), (2, -50.0)].into(),
        logprobs: Some(3),
        ..Settings::default()
    };
    let mask = Mask::of(5, |id| id != 1);
    let choice = Sampler::new(settings, &[0], 0).choose(&mut numbers.clone(), 0, Some(&mask)).unwrap();
    assert_eq!(choice.id, 3, "the only one that is neither forbidden nor pushed away");
    let logprobs = choice.logprobs.unwrap();
    assert!((logprobs.chosen - (1.0 - total)).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2, 1]);
    assert!((logprobs.top[0].1 - (3.0 - total)).abs() < 1e-6);

    let only = Settings { logprobs: Some(0), ..greedy() };
    let logprobs = Sampler::new(only, &[], 0).choose(&mut numbers.clone(), 0, None).unwrap().logprobs.unwrap();
    assert_eq!((logprobs.top.len(), (logprobs.chosen - (3.0 - total)).abs() < 1e-6), (0, true));
    let all = Settings { logprobs: Some(20), ..greedy() };
    let logprobs = Sampler::new(all, &[], 0).choose(&mut numbers.clone(), 0, None).unwrap().logprobs.unwrap();
    assert_eq!(logprobs.top.len(), 4, "what is impossible has no logarithm");
}
