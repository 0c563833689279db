//! Statistics of the numeric targets of a dataset, and the finding about outliers.

use super::diagnostics::{self, Diagnostic};
use crate::task::value_range::ValueRange;
use crate::task::{Example, Target};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Lines that the finding names.
const MAX_LINES: usize = 10;

/// Numeric targets of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ValueStats {
    pub min: f64,
    pub median: f64,
    pub max: f64,
    /// Values that are far outside of the range of the others: more than 20 interquartile ranges from the median.
    pub outliers: u64,
}

impl ValueStats {
    /// `None` for a dataset without numeric targets.
    pub(super) fn new(examples: &[Example]) -> Option<(Self, Option<Diagnostic>)> {
        let value = |example: &Example| match example.target {
            Target::Value(value) | Target::Score(value) => Some(value),
            _ => None,
        };
        let range = ValueRange::new(examples.iter().filter_map(value).collect())?;
        let is_outlier = |example: &&Example| value(example).is_some_and(|value| range.is_outlier(value));
        let outliers: Vec<&Example> = examples.iter().filter(is_outlier).collect();
        let stats = Self { min: range.min, median: range.median, max: range.max, outliers: outliers.len() as u64 };
        let finding = (!outliers.is_empty()).then(|| outlier_warning(&outliers, &range));
        Some((stats, finding))
    }
}

fn outlier_warning(outliers: &[&Example], range: &ValueRange) -> Diagnostic {
    let lines: Vec<String> = outliers.iter().take(MAX_LINES).map(|example| example.line.to_string()).collect();
    let more = if outliers.len() > MAX_LINES { " …" } else { "" };
    let (noun, line, verb) = if outliers.len() == 1 { ("value", "line", "is") } else { ("values", "lines", "are") };
    let message = format!(
        "{} {noun} ({line} {}{more}) {verb} far outside of the others, whose median is {}: the least is {}, the greatest {}; correct typing \
         errors; training takes such values as {} or {}",
        outliers.len(),
        lines.join(", "),
        range.median,
        range.min,
        range.max,
        range.lower,
        range.upper
    );
    Diagnostic::new(diagnostics::OUTLIERS, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_name_the_lines_of_outliers() {
        let example = |(line, value): (u64, f64)| Example {
            line,
            text: String::new(),
            text_pair: None,
            target: Target::Value(value),
        };
        let mut values: Vec<f64> = (0..50).map(f64::from).collect();
        let examples = |values: &[f64]| (2..).zip(values.iter().copied()).map(example).collect::<Vec<_>>();
        let (stats, finding) = ValueStats::new(&examples(&values)).unwrap();
        assert_eq!((stats, finding), (ValueStats { min: 0.0, median: 24.5, max: 49.0, outliers: 0 }, None));
        values[7] = 1e9;
        let (stats, finding) = ValueStats::new(&examples(&values)).unwrap();
        assert_eq!((stats.max, stats.outliers), (1e9, 1));
        assert!(finding.unwrap().message.starts_with("1 value (line 9) is far outside"));
        let text = Example { line: 1, text: String::new(), text_pair: None, target: Target::Text };
        assert!(ValueStats::new(&[text]).is_none());
    }
}
