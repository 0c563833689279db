//! Calibration of probabilities: temperature scaling (Guo et al. 2017) and expected calibration error.

use serde::Serialize;

/// Bins of confidence, of equal width.
const BINS: usize = 15;

/// Predictions whose confidence is in a bin of the reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReliabilityBin {
    pub examples: usize,
    /// Mean probability of the predicted class.
    pub confidence: f64,
    /// Share of correct predictions.
    pub accuracy: f64,
}

/// softmax(logits / temperature), with sums in `f64`.
pub fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let scaled = logits.iter().map(|logit| f64::from(*logit) / f64::from(temperature));
    let max_logit = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scaled.map(|logit| (logit - max_logit).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / total).collect()
}

/// Indices of the `count` most probable entries, sorted. A tie is decided for the earlier entry, as in `argmax`.
pub fn most_probable(probabilities: &[f64], count: usize) -> Vec<usize> {
    let by_probability =
        |one: &usize, other: &usize| probabilities[*other].total_cmp(&probabilities[*one]).then(one.cmp(other));
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    if let Some(last) = count.checked_sub(1).filter(|last| *last < order.len()) {
        order.select_nth_unstable_by(last, by_probability);
    }
    order.truncate(count);
    order.sort_unstable_by(by_probability);
    order
}

/// Mean negative log likelihood of the classes under logits `(examples, classes)`.
pub fn cross_entropy(logits: &[f32], class_count: usize, targets: &[u32], temperature: f32) -> f64 {
    smoothed_cross_entropy(logits, class_count, targets, temperature, 0.0)
}

/// Cross entropy with label smoothing.
pub fn smoothed_cross_entropy(
    logits: &[f32],
    class_count: usize,
    targets: &[u32],
    temperature: f32,
    label_smoothing: f64,
) -> f64 {
    let rows = logits.chunks_exact(class_count).zip(targets);
    let total: f64 =
        rows.map(|(row, target)| row_cross_entropy(row, *target, f64::from(temperature), label_smoothing)).sum();
    total / targets.len() as f64
}

fn row_cross_entropy(row: &[f32], target: u32, temperature: f64, label_smoothing: f64) -> f64 {
    let max_logit = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let scaled_logit = |logit: &f32| (f64::from(*logit) - max_logit) / temperature;
    let sum: f64 = row.iter().map(|logit| scaled_logit(logit).exp()).sum();
    let mean_logit = match label_smoothing > 0.0 {
        true => row.iter().map(scaled_logit).sum::<f64>() / row.len() as f64,
        false => 0.0,
    };
    sum.ln() - (1.0 - label_smoothing) * scaled_logit(&row[target as usize]) - label_smoothing * mean_logit
}

/// Temperature between 1/20 and 20 with the smallest loss, by golden-section search over its logarithm, where the loss has one
/// minimum. The label smoothing is at least that of one mistake in all examples (Laplace's rule of succession), so that a few
/// correct predictions do not give full confidence.
pub fn fit_temperature(logits: &[f32], class_count: usize, targets: &[u32], min_label_smoothing: f64) -> f32 {
    let golden_ratio = (5f64.sqrt() - 1.0) / 2.0;
    let label_smoothing = min_label_smoothing.max(1.0 / (targets.len() as f64 + 2.0));
    let loss_at =
        |logarithm: f64| smoothed_cross_entropy(logits, class_count, targets, logarithm.exp() as f32, label_smoothing);
    let (mut lower, mut upper) = (-(20f64.ln()), 20f64.ln());
    let (mut left_point, mut right_point) =
        (upper - golden_ratio * (upper - lower), lower + golden_ratio * (upper - lower));
    let (mut left_loss, mut right_loss) = (loss_at(left_point), loss_at(right_point));
    while upper - lower > 1e-3 {
        if left_loss < right_loss {
            (upper, right_point, right_loss) = (right_point, left_point, left_loss);
            left_point = upper - golden_ratio * (upper - lower);
            left_loss = loss_at(left_point);
        } else {
            (lower, left_point, left_loss) = (left_point, right_point, right_loss);
            right_point = lower + golden_ratio * (upper - lower);
            right_loss = loss_at(right_point);
        }
    }
    ((lower + upper) / 2.0).exp() as f32
}

/// Predictions of a bin: their number, the sum of their confidences, and how many are correct.
type BinSums = [(usize, f64, usize); BINS];

fn bin_sums(logits: &[f32], class_count: usize, targets: &[u32], temperature: f32) -> BinSums {
    let mut bins = [(0usize, 0.0f64, 0usize); BINS];
    for (row, target) in logits.chunks_exact(class_count).zip(targets) {
        let probabilities = softmax(row, temperature);
        let predicted = super::metrics::argmax(row);
        let confidence = probabilities[predicted];
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += 1;
        bin.1 += confidence;
        bin.2 += usize::from(predicted as u32 == *target);
    }
    bins
}

/// Reliability diagram: the bins of confidence that have examples, the lowest first.
pub fn reliability_bins(logits: &[f32], class_count: usize, targets: &[u32], temperature: f32) -> Vec<ReliabilityBin> {
    let bins = bin_sums(logits, class_count, targets, temperature).into_iter().filter(|(examples, ..)| *examples > 0);
    let mean = |(examples, confidence, correct): (usize, f64, usize)| ReliabilityBin {
        examples,
        confidence: confidence / examples as f64,
        accuracy: correct as f64 / examples as f64,
    };
    bins.map(mean).collect()
}

/// Expected calibration error: gap between confidence and accuracy per bin of confidence, weighted by the size of the bin.
pub fn expected_calibration_error(logits: &[f32], class_count: usize, targets: &[u32], temperature: f32) -> f64 {
    let bins = bin_sums(logits, class_count, targets, temperature);
    let gaps = bins.iter().map(|(_, confidence, correct)| (confidence - *correct as f64).abs());
    gaps.sum::<f64>() / targets.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_are_those_of_a_full_sort() {
        // Few different values, so that there are ties.
        let probabilities: Vec<f64> = (0..500_u64).map(|index| (index * index % 37) as f64 / 37.0).collect();
        let mut sorted: Vec<usize> = (0..500).collect();
        sorted.sort_by(|one, other| probabilities[*other].total_cmp(&probabilities[*one]).then(one.cmp(other)));
        for count in [0, 1, 2, 14, 499, 500, 501] {
            assert_eq!(most_probable(&probabilities, count), sorted[..count.min(500)], "{count}");
        }
        assert!(most_probable(&[], 1).is_empty());
    }

    #[test]
    fn temperature_scaling_matches_confidence_to_accuracy() {
        // Three of four predictions are correct, but the confidence is close to 1.
        let logits: Vec<f32> = (0..400).flat_map(|_| [6.0, 0.0]).collect();
        let targets: Vec<u32> = (0..400).map(|index| u32::from(index % 4 == 0)).collect();
        let temperature = fit_temperature(&logits, 2, &targets, 0.0);
        assert!((f64::from(6.0 / temperature) - 3f64.ln()).abs() < 0.01, "odds of three to one");
        let bins = reliability_bins(&logits, 2, &targets, 1.0);
        assert_eq!((bins.len(), bins[0].examples, bins[0].accuracy), (1, 400, 0.75));
        assert!(expected_calibration_error(&logits, 2, &targets, 1.0) > 0.2);
        assert!(expected_calibration_error(&logits, 2, &targets, temperature) < 0.01);
    }

    #[test]
    fn few_correct_examples_do_not_give_full_confidence() {
        let logits: Vec<f32> = (0..4).flat_map(|_| [3.0, 0.0]).collect();
        let temperature = fit_temperature(&logits, 2, &[0; 4], 0.0);
        assert!(softmax(&logits[..2], temperature)[0] < 0.95);
    }

    #[test]
    fn softmax_sums_to_one_for_large_logits() {
        let probabilities = softmax(&[1000.0, 999.0, -1000.0], 1.0);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
