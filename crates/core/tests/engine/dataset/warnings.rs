//! Warnings and counts of the report.

use crate::dataset::support::{csv, expected_diagnostics, jsonl};

#[test]
fn duplicate_and_conflicting_rows_get_warnings() {
    let file = csv("text,label\na,x\na,x\na,y\n a,y\nb,x\nc,y\n");
    let expected = [(3, "duplicate"), (4, "conflicting_labels"), (5, "white_space"), (5, "duplicate")];
    assert_eq!(file.warnings(), expected_diagnostics(&expected));
    let report = file.check().report;
    assert_eq!((report.examples, report.warning_counts["duplicate"]), (6, 2));
    assert!(report.warnings[1].message.contains("\"x\" on line 2 and \"y\" here"), "{}", report.warnings[1].message);
    assert!(report.warnings[3].message.contains("line 4"));
}

#[test]
fn label_with_one_example_gets_a_warning_at_its_line() {
    let file = csv("text,label\na,x\nb,only\n c,x\nd,other\n");
    assert_eq!(
        file.warnings(),
        expected_diagnostics(&[(3, "label_seen_once"), (4, "white_space"), (5, "label_seen_once")])
    );
}

#[test]
fn surrounding_whitespace_is_trimmed() {
    let file = jsonl("{\"text\": \"\\n a\", \"label\": \"x \"}\n{\"text\": \"b\", \"label\": \"y\"}\n");
    let checked = file.check();
    assert_eq!(checked.report.warning_counts["white_space"], 1);
    assert_eq!(file.examples()[0], (1, "a".to_string(), "x".to_string()));
    assert!(checked.report.warnings.iter().any(|warning| warning.message.contains("the text and the label")));
}

#[test]
fn truncated_texts_get_one_warning_and_count_with_their_whole_length() {
    let file = csv("text,label\none two three four five,x\none,y\nsix,x\ntwo words,y\n");
    assert_eq!(file.warnings(), expected_diagnostics(&[(0, "truncated")]));
    let lengths = file.check().report.lengths;
    assert_eq!((lengths.min, lengths.median, lengths.p95, lengths.max), (1, 1, 5, 5));
    let buckets: Vec<_> = lengths.buckets.iter().map(|bucket| (bucket.up_to, bucket.count)).collect();
    assert_eq!(buckets, [(1, 2), (2, 1), (4, 0), (8, 1)]);
}

#[test]
fn labels_are_counted_most_frequent_first() {
    let report = csv("text,label\na,y\nb,z\nc,x\nd,z\ne,x\n").check().report;
    let labels: Vec<_> = report.labels.iter().map(|label| (label.label.as_str(), label.count)).collect();
    assert_eq!(labels, [("x", 2), ("z", 2), ("y", 1)]);
}

#[test]
fn first_100_warnings_are_listed_and_all_are_counted() {
    let rows: String = (0..250).map(|_| "a,x\n").collect();
    let report = csv(format!("text,label\nb,y\nc,y\n{rows}")).check().report;
    assert_eq!((report.warnings[0].line, report.warnings[0].code.as_str()), (None, "rare_label"), "of the file");
    assert_eq!((report.warnings.len(), report.warning_counts["duplicate"]), (100, 249));
    assert_eq!((report.warnings[1].line, report.warnings[99].line), (Some(5), Some(103)));
}
