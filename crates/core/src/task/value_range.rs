//! Range of a dataset's values, beyond which a value is an outlier, such as one with a slipped decimal point.

/// Distance from the median beyond which a value is an outlier, in spreads. Values of a heavy tail, such as prices, are within it.
const MAX_SPREADS: f64 = 20.0;

/// Ratio of the distance between the 5th and the 95th percentile to that between the quartiles of a normal distribution.
const NORMAL_TAIL_RATIO: f64 = 2.44;

/// Fewer values have no outliers.
const MIN_VALUES: usize = 8;

/// Extremes and median of values, and the range of those that are not outliers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueRange {
    pub min: f64,
    pub median: f64,
    pub max: f64,
    /// The least and the greatest value that is no outlier.
    pub lower: f64,
    pub upper: f64,
    /// Distance from the median beyond which a value is an outlier.
    max_distance: f64,
}

impl ValueRange {
    /// A value is an outlier beyond 20 spreads from the median. The spread is the interquartile range, or the distance between the 5th
    /// and the 95th percentile where that is larger than in a normal distribution. Few or hardly varying values have no outliers.
    pub fn new(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        // Rounded towards the median, so that a single outlier is no quantile of few values.
        let last = values.len() - 1;
        let below = |share: f64| values[(share * last as f64).ceil() as usize];
        let above = |share: f64| values[last - (share * last as f64).ceil() as usize];
        let median = (values[last / 2] + values[last.div_ceil(2)]) / 2.0;
        let spread = (above(0.25) - below(0.25)).max((above(0.05) - below(0.05)) / NORMAL_TAIL_RATIO);
        let max_distance = match values.len() >= MIN_VALUES && spread > 0.0 {
            true => MAX_SPREADS * spread,
            false => f64::INFINITY,
        };
        let is_inlier = |value: &f64| (value - median).abs() <= max_distance;
        let lower = values.iter().copied().find(is_inlier).unwrap_or(min);
        let upper = values.iter().rev().copied().find(is_inlier).unwrap_or(max);
        Some(Self { min, median, max, lower, upper, max_distance })
    }

    pub fn is_outlier(&self, value: f64) -> bool {
        (value - self.median).abs() > self.max_distance
    }

    /// The value, or the end of the range where it is an outlier.
    pub fn clip(&self, value: f64) -> f64 {
        if self.is_outlier(value) { value.clamp(self.lower, self.upper) } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_tensor::seeded_rng::SeededRng;

    fn outliers(values: &[f64]) -> usize {
        let range = ValueRange::new(values.to_vec()).unwrap();
        values.iter().filter(|value| range.is_outlier(**value)).count()
    }

    #[test]
    fn a_slipped_decimal_point_is_an_outlier_and_clean_values_are_none() {
        let mut random = SeededRng::new(1, &["values"]);
        let normal: Vec<f64> = (0..500).map(|_| 50.0 + 10.0 * f64::from(random.standard_normal())).collect();
        let skewed: Vec<f64> = (0..500).map(|_| f64::from(random.standard_normal()).exp()).collect();
        let counts: Vec<f64> = (0..500).map(|index| if index % 10 == 0 { f64::from(index % 7) } else { 0.0 }).collect();
        assert_eq!([outliers(&normal), outliers(&skewed), outliers(&counts)], [0, 0, 0]);
        let with_typo = [normal, vec![50_000.0]].concat();
        assert_eq!(outliers(&with_typo), 1);
        let range = ValueRange::new(with_typo).unwrap();
        assert_eq!(range.max, 50_000.0);
        assert!((range.median - 50.0).abs() < 2.0 && range.clip(50_000.0) == range.upper, "{range:?}");
        assert!(range.upper < 100.0 && range.clip(120.0) == 120.0, "{range:?}");
    }

    #[test]
    fn few_and_equal_values_have_no_outliers() {
        assert_eq!(outliers(&[1.0, 2.0, 1e9]), 0);
        assert_eq!(outliers(&[[5.0; 30].to_vec(), vec![6.0]].concat()), 0);
        let few = [1.0, 2.0, 3.0, 4.0, 5.0, 2.5, 3.5, 4.5, 1e9];
        assert_eq!(outliers(&few), 1);
        assert!(ValueRange::new(Vec::new()).is_none());
        assert_eq!(ValueRange::new(vec![1.0, 2.0]).unwrap().median, 1.5);
    }
}
