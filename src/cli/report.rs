//! The report on a dataset in a few lines. Knows nothing of how it was sent.

use super::failure::Outcome;
use super::output::Output;
use espalier_core::data::Report;

/// More of them would hide the rest.
const WARNINGS: usize = 5;
const LABELS: usize = 3;

pub fn show(report: &Report, file: &str, output: &mut Output) -> Outcome {
    let skipped = report.rows.saturating_sub(report.examples);
    let left_out = if skipped > 0 { format!(", {skipped} left out") } else { String::new() };
    output.line(format!("{file}: {} rows, {} examples{left_out}", report.rows, report.examples))?;
    if let (Some(most), Some(least)) = (report.labels.first(), report.labels.last()) {
        let frequent: Vec<String> =
            report.labels.iter().take(LABELS).map(|label| format!("{} {}", label.label, label.count)).collect();
        output.line(format!(
            "  {} labels, {} to {} examples each: {}{}",
            report.labels.len(),
            least.count,
            most.count,
            frequent.join(", "),
            if report.labels.len() > LABELS { ", …" } else { "" }
        ))?;
    }
    let lengths = &report.lengths;
    output.line(format!(
        "  {} to {} tokens, half of them up to {}, 95 % up to {}",
        lengths.min, lengths.max, lengths.median, lengths.p95
    ))?;
    for finding in report.warnings.iter().take(WARNINGS) {
        let place = finding.line.map(|line| format!("{file}:{line}: ")).unwrap_or_default();
        output.line(format!("  warning: {place}{}", finding.message))?;
    }
    let warnings: u64 = report.warning_counts.values().sum();
    let unshown = warnings.saturating_sub(report.warnings.len().min(WARNINGS) as u64);
    if unshown > 0 {
        let kinds: Vec<String> = report.warning_counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        output.line(format!("  warning: {unshown} more; in all: {}", kinds.join(", ")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Form;
    use crate::cli::output::tests::kept;
    use espalier_core::data::{Finding, Histogram, LabelCount};

    #[test]
    fn a_report_is_a_few_lines_however_long_it_is() {
        let label = |number: u64| LabelCount { label: format!("l{number}"), count: 9 - number };
        let warning =
            |line| Finding { line: Some(line), code: "duplicate".to_string(), message: "same as line 2".to_string() };
        let report = Report {
            rows: 10,
            examples: 9,
            warnings: (3..20).map(warning).collect(),
            warning_counts: [("duplicate".to_string(), 17)].into(),
            labels: (0..4).map(label).collect(),
            lengths: Histogram { min: 3, median: 11, p95: 27, max: 60, tokens: 0, buckets: Vec::new() },
            ..Report::default()
        };
        let (mut output, people, _) = kept(Form::People);
        show(&report, "rows.csv", &mut output).unwrap();
        let text = people.text();
        assert_eq!(text.lines().count(), 9, "{text}");
        assert!(text.starts_with("rows.csv: 10 rows, 9 examples, 1 left out\n  4 labels, 6 to 9 examples each: l0 9,"));
        assert!(text.contains("  warning: rows.csv:3: same as line 2\n"));
        assert!(text.ends_with("  warning: 12 more; in all: duplicate 17\n"));
    }
}
