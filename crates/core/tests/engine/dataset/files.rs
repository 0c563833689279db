//! Files as a whole: limits, error, skipped rows, validation datasets.

use crate::dataset::support::{WordCounter, csv, expected_diagnostics, expected_examples, jsonl};
use espalier_core::dataset::{self, Format, Options};
use espalier_core::error::{Error, Location};
use espalier_core::task;

#[test]
fn file_without_rows_is_refused() {
    assert_eq!(csv("").errors(), expected_diagnostics(&[(0, "no_usable_row")]));
    assert_eq!(csv("\u{feff}\n\n").errors(), expected_diagnostics(&[(0, "no_usable_row")]));
    assert_eq!(csv("text,label\n").errors(), expected_diagnostics(&[(0, "no_usable_row")]));
    assert_eq!(jsonl("").errors(), expected_diagnostics(&[(0, "no_usable_row")]));
    assert_eq!(jsonl("\n{}\n").skip_bad_rows().errors(), expected_diagnostics(&[(0, "no_usable_row")]));
}

#[test]
fn utf16_file_with_a_mark_is_read() {
    let bytes: Vec<u8> = "\u{feff}text,label\na,x\nb,y\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(csv(&bytes).examples(), expected_examples(&[(2, "a", "x"), (3, "b", "y")]));
}

#[test]
fn several_lines_in_another_encoding_are_one_error() {
    let text = b"text,label\ngr\xf6\xdfer,x\n,x\nsch\xf6n,y\nb,y\n";
    let file = csv(text);
    assert_eq!(file.errors(), expected_diagnostics(&[(0, "unknown_encoding"), (3, "empty_text")]));
    let skipped = csv(text).skip_bad_rows().check().report;
    assert_eq!((skipped.warning_counts["bad_utf8"], skipped.examples), (2, 1));
}

#[test]
fn fewer_than_two_labels_are_refused_under_skip() {
    let file = csv("text,label\na,x\nb,x\n,y\n").skip_bad_rows();
    assert_eq!(file.errors(), expected_diagnostics(&[(0, "too_few_labels")]));
}

#[test]
fn limits_are_inclusive() {
    let file = || csv("text,label\na,x\nb,y\nc,z\n");
    assert_eq!(file().with_limits(|s| s.max_bytes = 23).errors(), []);
    assert_eq!(file().with_limits(|s| s.max_bytes = 22).errors(), expected_diagnostics(&[(0, "too_many_bytes")]));
    assert_eq!(file().with_limits(|s| s.max_rows = 3).errors(), []);
    assert_eq!(
        file().with_limits(|s| s.max_rows = 2).skip_bad_rows().errors(),
        expected_diagnostics(&[(0, "too_many_rows")])
    );
    assert_eq!(file().with_limits(|s| s.max_labels = 3).errors(), []);
    assert_eq!(
        file().with_limits(|s| s.max_labels = 2).skip_bad_rows().errors(),
        expected_diagnostics(&[(0, "too_many_labels")])
    );
}

#[test]
fn skip_turns_row_errors_into_warnings() {
    let text = "text,label\na,x\n,x\nb\n,y\n\"c\" d,y\ne,y\nf,x\ng,y\n";
    let strict = csv(text);
    assert_eq!(strict.check().report.error_count, 4);
    let skipped = csv(text).skip_bad_rows();
    assert_eq!(skipped.errors(), []);
    assert_eq!(
        skipped.warnings(),
        expected_diagnostics(&[(3, "empty_text"), (4, "field_count"), (5, "empty_text"), (6, "broken_quote")])
    );
    let report = skipped.check().report;
    assert_eq!((report.rows, report.examples, report.warning_counts["empty_text"]), (8, 4, 2));
    assert_eq!(skipped.examples(), expected_examples(&[(2, "a", "x"), (7, "e", "y"), (8, "f", "x"), (9, "g", "y")]));
}

#[test]
fn rejection_lists_errors_by_line_with_advice() {
    let rows: String = (0..120).map(|_| ",x\n").collect();
    let error = csv(format!("text,label\na,x\nb,y\n{rows}")).check().report.to_error().unwrap();
    let Error::Invalid(problem) = error else { panic!("{error}") };
    assert_eq!((problem.code, problem.errors.len()), ("invalid_dataset", 100));
    assert_eq!(problem.errors[0].location, Location::Line(4));
    assert!(problem.detail.contains("120 errors; the first 100 are listed"), "{}", problem.detail);
    assert!(problem.detail.contains("\"on_bad_rows\": \"skip\""), "{}", problem.detail);

    let error = csv("text,label\na,x\n,y\n").check().report.to_error().unwrap();
    assert!(error.to_string().contains("at least two labels"), "{error}");
    assert!(error.to_string().contains("1 error"), "{error}");
    assert!(!error.to_string().contains("skip"), "{error}");
    assert!(csv("text,label\na,x\nb,y\n").check().report.to_error().is_none());
}

#[test]
fn validation_label_without_training_rows_is_an_error() {
    let training = csv("text,label\na,y\nb,x\nc,y\n").check();
    let labels = dataset::unique_labels(&training.examples);
    assert_eq!(labels, ["x", "y"]);
    let mut validation = csv("text,label\na,x\nb,z\nc,y\nd,z\n").check();
    dataset::check_validation_labels(&mut validation, &labels);
    let lines: Vec<_> = validation.report.errors.iter().map(|error| (error.line, error.code.as_str())).collect();
    assert_eq!(lines, [(Some(3), "unknown_label"), (Some(5), "unknown_label")]);
    assert_eq!(validation.report.error_count, 2);
    assert!(!validation.report.to_error().unwrap().to_string().contains("skip"));
    let mut validation = csv("text,label\na,x\nc,y\n").check();
    dataset::check_validation_labels(&mut validation, &labels);
    assert!(validation.report.to_error().is_none());
}

#[test]
fn missing_file_is_an_internal_error() {
    let options = Options::new(Format::Csv);
    let file = csv("");
    let path = std::path::Path::new("/nowhere/at all.csv");
    let error = dataset::validate(path, &options, &task::Config::default(), &WordCounter, &file.limits).unwrap_err();
    assert_eq!(error.code(), "internal");
    assert!(error.to_string().contains("/nowhere/at all.csv"), "{error}");
}

#[test]
fn ten_thousand_rows_are_validated_within_a_second() {
    let rows: String =
        (0..10_000).map(|row| format!("\"how do I find, or get, my card {row}?\",label {}\n", row % 77)).collect();
    let file = csv(format!("text,label\n{rows}"));
    let started = std::time::Instant::now();
    assert_eq!(file.check().report.examples, 10_000);
    assert!(started.elapsed().as_millis() < 1000, "{:?}", started.elapsed());
}
