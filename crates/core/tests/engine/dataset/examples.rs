//! The files in `examples/` match their README.

use crate::dataset::support::{csv, expected_diagnostics};

#[test]
fn banking_examples_have_equally_many_rows_per_intent() {
    let sample =
        csv(include_str!("../../../../../examples/banking77-sample.csv")).map_column("label", "category").check();
    let test = csv(include_str!("../../../../../examples/banking77-test.csv")).map_column("label", "category").check();
    for (checked, each) in [(&sample, 50), (&test, 20)] {
        assert_eq!(checked.report.error_count, 0, "{:?}", checked.report.errors);
        assert_eq!(checked.report.labels.len(), 20);
        assert!(checked.report.labels.iter().all(|label| label.count == each));
    }
    let known = espalier_core::dataset::unique_labels(&sample.examples);
    assert_eq!(espalier_core::dataset::unique_labels(&test.examples), known);
}

#[test]
fn broken_example_reports_many_errors_and_can_be_skipped() {
    let file = csv(include_bytes!("../../../../../examples/broken.csv"));
    let errors = [
        (4, "empty_text"),
        (7, "field_count"),
        (8, "broken_quote"),
        (9, "bad_utf8"),
        (10, "empty_label"),
        (11, "field_count"),
    ];
    assert_eq!(file.errors(), expected_diagnostics(&errors));
    let report = file.skip_bad_rows().check().report;
    assert_eq!((report.error_count, report.rows, report.examples), (0, 13, 7));
    for code in ["white_space", "duplicate", "conflicting_labels", "label_seen_once", "bad_utf8"] {
        assert!(report.warning_counts.contains_key(code), "{code}");
    }
}
