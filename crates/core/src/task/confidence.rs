//! Confidence intervals of 95 % for metrics, which say how far a metric on few examples can be trusted.

/// Quantile of the normal distribution for 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Lower and upper bound.
pub type Interval = [f64; 2];

/// Score interval of a proportion (Wilson 1927); `None` without trials.
pub fn proportion(proportion: f64, trials: usize) -> Option<Interval> {
    if trials == 0 {
        return None;
    }
    let (n, z2) = (trials as f64, Z * Z);
    let center = (proportion + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let margin = Z / (1.0 + z2 / n) * (proportion * (1.0 - proportion) / n + z2 / (4.0 * n * n)).sqrt();
    Some([(center - margin).max(0.0), (center + margin).min(1.0)])
}

/// Interval of an F1 score, from the number of correct predictions and of errors (false positives and false negatives): the score
/// interval of `correct / (correct + errors)`, of which F1 is a monotonic function (Lam et al. 2023, the indirect Wilson method).
pub fn f1(correct: usize, errors: usize) -> Option<Interval> {
    let trials = correct + errors;
    let bounds = proportion(correct as f64 / trials.max(1) as f64, trials)?;
    Some(bounds.map(|bound| 2.0 * bound / (1.0 + bound)))
}

/// Interval of a correlation by its inverse hyperbolic tangent (Fisher 1915); `None` for fewer than four examples.
pub fn correlation(correlation: f64, examples: usize) -> Option<Interval> {
    if examples < 4 || correlation.abs() >= 1.0 {
        return None;
    }
    let margin = Z / (examples as f64 - 3.0).sqrt();
    Some([-margin, margin].map(|margin| (correlation.atanh() + margin).tanh()))
}

/// Intervals of the two correlations that tasks report.
pub fn correlation_intervals(pearson: f64, spearman: f64, examples: usize) -> Vec<(&'static str, Option<Interval>)> {
    vec![("pearson", correlation(pearson, examples)), ("spearman", correlation(spearman, examples))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: Option<Interval>, expected: Interval) {
        let found = found.unwrap();
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-4), "{found:?}");
    }

    #[test]
    fn intervals_equal_those_of_scipy() {
        // scipy.stats.binomtest(k, n).proportion_ci(method="wilson") and scipy.stats.pearsonr(…).confidence_interval().
        assert_close(proportion(0.9, 20), [0.698_97, 0.972_14]);
        assert_close(proportion(1.0, 10), [0.722_47, 1.0]);
        assert_close(proportion(0.0, 10), [0.0, 0.277_53]);
        assert_close(correlation(0.8, 50), [0.671_09, 0.881_96]);
    }

    #[test]
    fn f1_lies_within_its_interval() {
        let [low, high] = f1(8, 4).unwrap();
        let score = 16.0 / 20.0;
        assert!(low < score && score < high && low > 0.5 && high < 0.95, "{low} {high}");
        assert_eq!(f1(0, 0), None);
    }

    #[test]
    fn too_few_examples_have_no_interval() {
        assert_eq!((proportion(0.0, 0), correlation(0.5, 3), correlation(1.0, 10)), (None, None, None));
    }
}
