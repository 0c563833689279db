//! JSON lines, the format of inline examples, too.

use crate::dataset::support::{expected_diagnostics, expected_examples, jsonl};

#[test]
fn each_line_is_one_example() {
    let file = jsonl(
        "{\"text\": \"a \\u00e9 \\\"b\\\"\", \"label\": \"x\", \"more\": [1, {\"text\": 2}]}\r\n \n\
         {\"label\": \"y\", \"text\": \"c\", \"text_pair\": \"d\"}\n{\"text\":\"e\",\"label\":\"x\",\"text_pair\":null}",
    );
    assert_eq!(file.errors(), []);
    assert_eq!(file.examples(), expected_examples(&[(1, "a é \"b\"", "x"), (3, "c", "y"), (4, "e", "x")]));
    let pairs: Vec<_> = file.check().examples.into_iter().map(|example| example.text_pair).collect();
    assert_eq!(pairs, [None, Some("d".to_string()), None]);
}

#[test]
fn a_label_is_a_class_even_when_it_looks_like_a_number() {
    let file = jsonl(
        "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 1.0}\n{\"text\": \"c\", \"label\": true}\n\
         {\"text\": \"d\", \"label\": 123456789012345678901234567890}\n",
    );
    let labels: Vec<String> = file.examples().into_iter().map(|(_, _, label)| label).collect();
    assert_eq!(labels, ["1", "1.0", "true", "123456789012345678901234567890"]);
}

#[test]
fn fields_must_be_present_and_of_the_right_type() {
    let file = jsonl(
        "{\"text\": 1, \"label\": [\"x\", \"y\"]}\n{\"label\": \"x\"}\n{\"text\": \"a\", \"label\": null}\n\
         {\"text\": \"a\", \"label\": \"x\", \"text_pair\": {}}\n{\"text\": \" \", \"label\": \"\"}\n{}\n\
         {\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}\n",
    );
    let expected = [
        (1, "wrong_type"),
        (1, "wrong_type"),
        (2, "missing_field"),
        (3, "missing_field"),
        (4, "wrong_type"),
        (5, "empty_text"),
        (5, "empty_label"),
        (6, "missing_field"),
        (6, "missing_field"),
    ];
    assert_eq!(file.errors(), expected_diagnostics(&expected));
}

#[test]
fn line_that_is_no_object_is_an_error() {
    let bad =
        ["[{\"text\": \"a\"}]", "\"a\"", "null", "{\"text\": \"a\"", "{\"text\": \"\\ud800\", \"label\": \"x\"}", "}"];
    let good = "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}";
    let file = jsonl(format!("{}\n{good}", bad.join("\n")));
    let expected: Vec<_> = (1..=bad.len() as u64).map(|line| (line, "unreadable_record")).collect();
    assert_eq!(file.errors(), expected_diagnostics(&expected));
    let deep = format!("{{\"text\": \"a\", \"label\": \"x\", \"deep\": {}", "[".repeat(10_000));
    assert_eq!(jsonl(format!("{deep}\n{good}")).errors(), expected_diagnostics(&[(1, "unreadable_record")]));
}

#[test]
fn mapped_fields_are_read_from_their_columns() {
    let file = jsonl("{\"q\": \"a\", \"text\": \"b\", \"label\": \"x\"}\n{\"q\": \"c\", \"label\": \"y\"}\n")
        .map_column("text", "q");
    assert_eq!(file.examples(), expected_examples(&[(1, "a", "x"), (2, "c", "y")]));
    let file = file.map_column("text_pair", "text");
    assert_eq!(file.errors(), expected_diagnostics(&[(0, "too_few_labels"), (2, "missing_field")]));
    let message = &file.check().report.errors[1].message;
    assert!(message.contains("no \"text\"; its fields are \"label\", \"q\""), "{message}");
}

#[test]
fn invalid_utf8_and_oversized_lines_are_skipped() {
    let mut bytes = b"\xef\xbb\xbf{\"text\": \"\xff\", \"label\": \"x\"}\n".to_vec();
    bytes.extend(format!("{{\"text\": \"{}\", \"label\": \"x\"}}\n", "a ".repeat(100_000)).into_bytes());
    bytes.extend(b"{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}\n");
    let file = jsonl(bytes);
    assert_eq!(file.errors(), expected_diagnostics(&[(1, "bad_utf8"), (2, "record_too_long")]));
    assert!(file.check().report.errors[0].message.starts_with("byte 14 of line 1"));
    assert_eq!(file.examples(), expected_examples(&[(3, "a", "x"), (4, "b", "y")]));
}
