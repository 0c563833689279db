//! Threshold of a probability with the best expected F1, where few examples have the label.
//!
//! The best threshold of a sample with one positive example may lie anywhere between it and the next negative one. Kernel density
//! estimates of both classes' log-odds (Silverman, Density Estimation for Statistics and Data Analysis, 1986) stand for the examples to
//! come.

/// Highest scores that are smoothed; examples below them are never predicted.
const MIN_SMOOTHED: usize = 1000;
const SMOOTHED_PER_POSITIVE: usize = 4;
const CANDIDATES: usize = 200;
/// Silverman's factor of a Gaussian kernel.
const BANDWIDTH_FACTOR: f64 = 0.9;
/// Standard deviation of the positives before any is seen, in those of the negatives: scores of a rare class vary more.
const PRIOR_SPREAD: f64 = 2.0;
/// Least standard deviation of the negatives' log-odds: equal scores say nothing about those to come.
const MIN_SPREAD: f64 = 1.0;

/// Probability with the best F1 of the smoothed log-odds of these probabilities, which are sorted in descending order and of which
/// `support` are positive.
pub(super) fn smoothed_threshold(decisions: &[(f32, bool)], support: usize) -> f32 {
    let log_odds: Vec<(f64, bool)> =
        decisions.iter().map(|(probability, is_positive)| (to_log_odds(*probability), *is_positive)).collect();
    let of_class =
        |wanted: bool| log_odds.iter().filter(move |(_, is_positive)| *is_positive == wanted).map(|(value, _)| *value);
    let negatives = squared_deviations(of_class(false));
    let negative_count = decisions.len() - support;
    let negative_spread = (negatives / negative_count as f64).sqrt().max(MIN_SPREAD);
    let positives = squared_deviations(of_class(true));
    let prior = (PRIOR_SPREAD * negative_spread).powi(2);
    let positive_spread = ((positives + prior) / (support + 1) as f64).sqrt();
    let bandwidth = |spread: f64, count: usize| BANDWIDTH_FACTOR * spread * (count as f64).powf(-0.2);
    let bandwidths = [bandwidth(negative_spread, negative_count), bandwidth(positive_spread, support)];

    let smoothed = &log_odds[..log_odds.len().min(MIN_SMOOTHED.max(SMOOTHED_PER_POSITIVE * support))];
    let (highest, lowest) = (smoothed[0].0, smoothed[smoothed.len() - 1].0);
    let expected_f1 = |threshold: f64| {
        let (mut found, mut predicted) = (0.0, 0.0);
        for (value, is_positive) in smoothed {
            let share = logistic(1.702 * (value - threshold) / bandwidths[usize::from(*is_positive)]);
            predicted += share;
            found += if *is_positive { share } else { 0.0 };
        }
        2.0 * found / (predicted + support as f64)
    };
    let candidates = (0..=CANDIDATES).map(|index| lowest + (highest - lowest) * index as f64 / CANDIDATES as f64);
    let best =
        candidates.map(|threshold| (expected_f1(threshold), threshold)).max_by(|one, other| one.0.total_cmp(&other.0));
    logistic(best.map_or(0.0, |(_, threshold)| threshold)) as f32
}

fn to_log_odds(probability: f32) -> f64 {
    let probability = f64::from(probability).clamp(1e-7, 1.0 - 1e-7);
    (probability / (1.0 - probability)).ln()
}

fn logistic(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

/// Sum of squared deviations from the mean.
fn squared_deviations(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let (sum, count) = values.clone().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    let mean = sum / f64::max(count, 1.0);
    values.map(|value| (value - mean).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(positives: &[f32], negatives: &[f32]) -> f32 {
        let mut decisions: Vec<(f32, bool)> = positives.iter().map(|one| (*one, true)).collect();
        decisions.extend(negatives.iter().map(|one| (*one, false)));
        decisions.sort_by(|one, other| other.0.total_cmp(&one.0));
        smoothed_threshold(&decisions, positives.len())
    }

    #[test]
    fn one_positive_gives_a_threshold_near_the_negatives() {
        let negatives: Vec<f32> = (1..=95).map(|index| 0.0003 * index as f32).collect();
        let found = threshold(&[0.9], &negatives);
        assert!(found > 0.03 && found < 0.2, "{found}: the middle of the log-odds is 0.34");
    }

    #[test]
    fn many_of_both_classes_give_the_threshold_between_them() {
        let positives: Vec<f32> = (0..200).map(|index| 0.6 + 0.0015 * index as f32).collect();
        let negatives: Vec<f32> = (0..200).map(|index| 0.1 + 0.0015 * index as f32).collect();
        let found = threshold(&positives, &negatives);
        assert!(found > 0.42 && found < 0.58, "{found}");
    }

    #[test]
    fn certain_and_equal_probabilities_give_a_threshold_within_their_range() {
        for (positives, negatives) in [(&[1.0][..], &[0.0; 20][..]), (&[0.5; 3], &[0.5; 9]), (&[0.2], &[0.7; 9])] {
            let found = threshold(positives, negatives);
            assert!((0.0..=1.0).contains(&found), "{found}");
        }
    }
}
