//! Prints the validation report of a dataset in a few lines.

use super::error::CliResult;
use super::flag_advice::replace_fields_by_flags;
use super::output::Output;
use espalier_core::dataset::Report;

/// Number of warnings shown.
const MAX_WARNINGS: usize = 5;
/// Number of labels shown.
const MAX_LABELS: usize = 3;

pub fn print_report(report: &Report, file_name: &str, output: &mut Output) -> CliResult {
    let skipped = report.rows.saturating_sub(report.examples);
    let skipped_note = if skipped > 0 { format!(", {skipped} left out") } else { String::new() };
    output.write_line(format!("{file_name}: {} rows, {} examples{skipped_note}", report.rows, report.examples))?;
    for sentence in &report.mapping {
        output.write_line(format!("  {}", replace_fields_by_flags(sentence)))?;
    }
    if !report.unread_columns.is_empty() {
        output.write_line(format!("  not read: {}", report.unread_columns.join(", ")))?;
    }
    for (reason, count) in &report.left_out {
        output.write_line(format!("  left out for {reason}: {count}"))?;
    }
    if let (Some(most), Some(least)) = (report.labels.first(), report.labels.last()) {
        let frequent: Vec<String> =
            report.labels.iter().take(MAX_LABELS).map(|label| format!("{} {}", label.label, label.count)).collect();
        output.write_line(format!(
            "  {} labels, {} to {} examples each: {}{}",
            report.labels.len(),
            least.count,
            most.count,
            frequent.join(", "),
            if report.labels.len() > MAX_LABELS { ", …" } else { "" }
        ))?;
    }
    let lengths = &report.lengths;
    output.write_line(format!(
        "  {} to {} tokens, half of them up to {}, 95 % up to {}",
        lengths.min, lengths.max, lengths.median, lengths.p95
    ))?;
    for finding in report.warnings.iter().take(MAX_WARNINGS) {
        let location = finding.line.map(|line| format!("{file_name}:{line}: ")).unwrap_or_default();
        output.write_line(format!("  warning: {location}{}", replace_fields_by_flags(&finding.message)))?;
    }
    let warnings: u64 = report.warning_counts.values().sum();
    let hidden = warnings.saturating_sub(report.warnings.len().min(MAX_WARNINGS) as u64);
    if hidden > 0 {
        let counts_by_code: Vec<String> =
            report.warning_counts.iter().map(|(code, count)| format!("{code} {count}")).collect();
        output.write_line(format!("  warning: {hidden} more; in all: {}", counts_by_code.join(", ")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::OutputFormat;
    use crate::cli::output::tests::captured_output;
    use espalier_core::dataset::{Histogram, LabelCount, LocatedDiagnostic};

    #[test]
    fn long_reports_are_summarized() {
        let label = |number: u64| LabelCount { label: format!("l{number}"), count: 9 - number };
        let warning = |line| LocatedDiagnostic {
            line: Some(line),
            code: "duplicate".to_string(),
            message: "same as line 2".to_string(),
        };
        let report = Report {
            rows: 10,
            examples: 9,
            mapping: vec!["`text` is read from \"review\"".to_string()],
            unread_columns: vec!["id".to_string(), "time".to_string()],
            left_out: [("split: test".to_string(), 1)].into(),
            warnings: (3..20).map(warning).collect(),
            warning_counts: [("duplicate".to_string(), 17)].into(),
            labels: (0..4).map(label).collect(),
            lengths: Histogram { min: 3, median: 11, p95: 27, max: 60, tokens: 0, buckets: Vec::new() },
            ..Report::default()
        };
        let (mut output, people, _) = captured_output(OutputFormat::Human);
        print_report(&report, "rows.csv", &mut output).unwrap();
        let text = people.text();
        assert_eq!(text.lines().count(), 12, "{text}");
        let columns = "  `text` is read from \"review\"\n  not read: id, time\n  left out for split: test: 1\n";
        let start =
            format!("rows.csv: 10 rows, 9 examples, 1 left out\n{columns}  4 labels, 6 to 9 examples each: l0 9,");
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains("  warning: rows.csv:3: same as line 2\n"));
        assert!(text.ends_with("  warning: 12 more; in all: duplicate 17\n"));
    }
}
