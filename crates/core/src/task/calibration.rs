//! Calibration of probabilities: the temperature (Guo et al. 2017) and the expected calibration error.

/// Equal-width bins of confidence.
const BINS: usize = 15;

/// softmax(logits / temperature), in `f64` for the sums.
pub fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let scaled = logits.iter().map(|logit| f64::from(*logit) / f64::from(temperature));
    let largest = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scaled.map(|logit| (logit - largest).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / total).collect()
}

/// The mean negative log likelihood of the classes under `(examples, classes)` logits.
pub fn loss(logits: &[f32], classes: usize, targets: &[u32], temperature: f32) -> f64 {
    smoothed_loss(logits, classes, targets, temperature, 0.0)
}

/// As [`loss`], where each target gives up a share of its certainty to all classes alike.
pub fn smoothed_loss(logits: &[f32], classes: usize, targets: &[u32], temperature: f32, smoothing: f64) -> f64 {
    let rows = logits.chunks_exact(classes).zip(targets);
    let total: f64 = rows.map(|(row, target)| surprise(row, *target, f64::from(temperature), smoothing)).sum();
    total / targets.len() as f64
}

fn surprise(row: &[f32], target: u32, temperature: f64, smoothing: f64) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let scaled = |logit: &f32| (f64::from(*logit) - largest) / temperature;
    let sum: f64 = row.iter().map(|logit| scaled(logit).exp()).sum();
    let mean = match smoothing > 0.0 {
        true => row.iter().map(scaled).sum::<f64>() / row.len() as f64,
        false => 0.0,
    };
    sum.ln() - (1.0 - smoothing) * scaled(&row[target as usize]) - smoothing * mean
}

/// The temperature between 1/20 and 20 with the least loss: golden-section search over its logarithm, where the loss
/// has one minimum. At least one mistake in so many examples is allowed for (Laplace's rule of succession), so that a
/// few right answers do not make for certainty.
pub fn fit_temperature(logits: &[f32], classes: usize, targets: &[u32], least_smoothing: f64) -> f32 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let smoothing = least_smoothing.max(1.0 / (targets.len() as f64 + 2.0));
    let at = |logarithm: f64| smoothed_loss(logits, classes, targets, logarithm.exp() as f32, smoothing);
    let (mut low, mut high) = (-(20f64.ln()), 20f64.ln());
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (at(left), at(right));
    while high - low > 1e-3 {
        if at_left < at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = at(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = at(right);
        }
    }
    ((low + high) / 2.0).exp() as f32
}

/// The expected calibration error: over bins of confidence, the gap between confidence and accuracy, weighted by size.
pub fn expected_error(logits: &[f32], classes: usize, targets: &[u32], temperature: f32) -> f64 {
    let mut bins = [(0usize, 0.0f64, 0usize); BINS];
    for (row, target) in logits.chunks_exact(classes).zip(targets) {
        let probabilities = softmax(row, temperature);
        let best = super::metrics::argmax(row);
        let confidence = probabilities[best];
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += 1;
        bin.1 += confidence;
        bin.2 += usize::from(best as u32 == *target);
    }
    let gaps = bins.iter().map(|(_, confidence, right)| (confidence - *right as f64).abs());
    gaps.sum::<f64>() / targets.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overconfident_classifier_is_cooled_to_its_accuracy() {
        // Three of four are right, yet the logits claim nearly all.
        let logits: Vec<f32> = (0..400).flat_map(|_| [6.0, 0.0]).collect();
        let targets: Vec<u32> = (0..400).map(|index| u32::from(index % 4 == 0)).collect();
        let temperature = fit_temperature(&logits, 2, &targets, 0.0);
        assert!((f64::from(6.0 / temperature) - 3f64.ln()).abs() < 0.01, "odds of three to one");
        assert!(expected_error(&logits, 2, &targets, 1.0) > 0.2);
        assert!(expected_error(&logits, 2, &targets, temperature) < 0.01);
    }

    #[test]
    fn a_few_right_answers_do_not_make_for_certainty() {
        let logits: Vec<f32> = (0..4).flat_map(|_| [3.0, 0.0]).collect();
        let temperature = fit_temperature(&logits, 2, &[0; 4], 0.0);
        assert!(softmax(&logits[..2], temperature)[0] < 0.95);
    }

    #[test]
    fn probabilities_sum_to_one_for_large_logits() {
        let probabilities = softmax(&[1000.0, 999.0, -1000.0], 1.0);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
