//! CSV and TSV: records, headers, quotes.

use crate::dataset::support::{csv, expected_diagnostics, expected_examples, tsv};

#[test]
fn line_numbers_count_lines_of_the_file() {
    let file = csv("\u{feff}text,label\r\n\r\n\"one\r\ntwo\",a\r\n\r\nthree,b\r\nfour,\"a\"");
    assert_eq!(file.errors(), []);
    assert_eq!(file.examples(), expected_examples(&[(3, "one\r\ntwo", "a"), (6, "three", "b"), (7, "four", "a")]));
    assert_eq!(file.check().report.rows, 3);
}

#[test]
fn columns_are_found_by_name() {
    let file = csv("id,kind, utterance ,,\n1,a,hello,,\n2,b,\"good, bye\",,\n").map_column("text", "utterance");
    assert_eq!(file.errors(), expected_diagnostics(&[(1, "missing_column")]));
    let file = file.map_column("label", "kind");
    assert_eq!(file.examples(), expected_examples(&[(2, "hello", "a"), (3, "good, bye", "b")]));
}

#[test]
fn text_pair_is_optional() {
    let pairs = |file: crate::dataset::support::File| -> Vec<Option<String>> {
        file.check().examples.into_iter().map(|example| example.text_pair).collect()
    };
    let table = "text,text_pair,label\na,b,x\nc, ,y\n";
    assert_eq!(pairs(csv(table)), [Some("b".to_string()), None]);
    assert_eq!(pairs(csv("text,other,label\na,b,x\nc,d,y\n")), [None, None]);
    let mapped = csv("text,other,label\na,b,x\nc,d,y\n").map_column("text_pair", "other");
    assert_eq!(pairs(mapped), [Some("b".to_string()), Some("d".to_string())]);
    assert_eq!(
        csv("text,label\na,x\nb,y\n").map_column("text_pair", "other").errors(),
        expected_diagnostics(&[(1, "missing_column")])
    );
    // The default column of the pair may be mapped to another field.
    assert_eq!(pairs(csv("text_pair,label\na,x\nc,y\n").map_column("text", "text_pair")), [None, None]);
}

#[test]
fn tsv_uses_the_quotes_of_csv() {
    let file = tsv("text\tlabel\n\"a\tb\"\tx\nc, d\ty\n\"broken\n");
    assert_eq!(file.examples(), expected_examples(&[(2, "a\tb", "x"), (3, "c, d", "y")]));
    assert_eq!(file.errors(), expected_diagnostics(&[(4, "broken_quote")]));
}

#[test]
fn missing_column_error_lists_the_columns_with_advice() {
    let report = csv("phrase,kind\na long one,x\nanother one,x\nand another,y\nthe last,y\n").check().report;
    assert_eq!((report.error_count, report.rows, report.errors[0].line), (1, 0, Some(1)));
    let message = &report.errors[0].message;
    assert!(message.contains("no column \"text\"; its columns are \"phrase\", \"kind\""), "{message}");
    assert!(message.contains("Likely is `\"columns\": {\"text\": \"phrase\", \"label\": \"kind\"}`"), "{message}");
    let message = &csv("text;label\na;x\n").check().report.errors[0].message;
    assert!(message.contains("separated by ';'"), "{message}");
}

#[test]
fn invalid_header_is_refused() {
    assert_eq!(csv("text,label,text\na,x,b\n").errors(), expected_diagnostics(&[(1, "duplicate_column")]));
    assert_eq!(csv("\n\ntext,lab\n").errors(), expected_diagnostics(&[(3, "missing_column")]));
    assert_eq!(csv("text,\"label\n").errors(), expected_diagnostics(&[(1, "broken_quote")]));
    assert_eq!(csv(b"text,l\xe4bel\n").errors(), expected_diagnostics(&[(1, "bad_utf8")]));
    assert_eq!(
        csv("text,label\na,b\n").with_limits(|s| s.max_record_bytes = 5).errors(),
        expected_diagnostics(&[(1, "invalid_header")])
    );
    assert_eq!(csv("text,label\n").map_column("txt", "a").errors(), expected_diagnostics(&[(0, "invalid_columns")]));
    assert_eq!(
        csv("text,label\n").map_column("label", "text").errors(),
        expected_diagnostics(&[(0, "invalid_columns")])
    );
}

#[test]
fn row_with_another_field_count_than_the_header_is_an_error() {
    let file = csv("text,label\na,x\nb\nc,y,z\nd,y\n");
    assert_eq!(file.errors(), expected_diagnostics(&[(3, "field_count"), (4, "field_count")]));
    assert_eq!(file.check().report.rows, 4);
}

#[test]
fn unterminated_quote_is_one_error_at_its_opening_line() {
    let file = csv("text,label\na,x\n\"b,y\nc,y\nd,x\n");
    assert_eq!(file.errors(), expected_diagnostics(&[(3, "broken_quote")]));
    assert_eq!(file.examples(), expected_examples(&[(2, "a", "x"), (4, "c", "y"), (5, "d", "x")]));
}

#[test]
fn rows_between_an_unterminated_quote_and_the_next_quote_are_read() {
    let file = csv("text,label\n\"a,x\nb,y\nc,x\n\"d, e\",y\nf,x\n");
    assert_eq!(file.errors(), expected_diagnostics(&[(2, "broken_quote")]));
    assert_eq!(file.examples(), expected_examples(&[(3, "b", "y"), (4, "c", "x"), (5, "d, e", "y"), (6, "f", "x")]));
}

#[test]
fn rest_of_a_text_after_an_undoubled_quote_is_not_read_as_rows() {
    let file = csv("text,label\n\"he said\nto \"John\"\nthat it was\",x\nb,y\nc,x\n");
    assert_eq!(file.errors(), expected_diagnostics(&[(2, "broken_quote")]));
    let message = &file.check().report.errors[0].message;
    assert!(message.contains("closes on line 3"), "{message}");
}

#[test]
fn text_after_a_closing_quote_is_an_error() {
    let file = csv("text,label\n\"a\" b,x\nc,y\n5\" pipe,x\n");
    assert_eq!(file.errors(), expected_diagnostics(&[(2, "broken_quote")]));
    assert_eq!(file.examples(), expected_examples(&[(3, "c", "y"), (4, "5\" pipe", "x")]));
}

#[test]
fn bad_utf8_error_names_line_and_byte() {
    // A character beyond ASCII shows that the file is UTF-8.
    let file = csv(b"text,label\n\"one\ntw\xf6\",x\n\xc3\xa9,y\nc\xff,x\nd,x\n");
    assert_eq!(file.errors(), expected_diagnostics(&[(2, "bad_utf8"), (5, "bad_utf8")]));
    let messages: Vec<String> = file.check().report.errors.into_iter().map(|error| error.message).collect();
    assert!(messages[0].starts_with("byte 3 of line 3 (0xF6)"), "{messages:?}");
    assert!(messages[1].starts_with("byte 2 of line 5 (0xFF)"), "{messages:?}");
}

#[test]
fn oversized_record_is_skipped() {
    let long = "x".repeat(300_000);
    let file = csv(format!("text,label\na,x\n{long},y\n\"{long}\n{long}\",y\nb,y\n"));
    assert_eq!(file.errors(), expected_diagnostics(&[(3, "record_too_long"), (4, "record_too_long")]));
    assert_eq!(file.examples(), expected_examples(&[(2, "a", "x"), (6, "b", "y")]));
}

#[test]
fn record_limit_is_inclusive() {
    let file = csv("text,label\nabcd,x\nabcde,y\r\nabcdefgh,x\n\"a\nb\",y").with_limits(|s| s.max_record_bytes = 10);
    assert_eq!(file.errors(), []);
    assert_eq!(file.with_limits(|s| s.max_record_bytes = 9).errors(), expected_diagnostics(&[(1, "invalid_header")]));
}

#[test]
fn file_of_malformed_quotes_is_read_in_linear_time() {
    // Each line ends inside quotes, whether it begins inside or outside of them.
    let file = csv(format!("text,label\n{}", "a\",\"\n".repeat(400_000)));
    let started = std::time::Instant::now();
    let report = file.check().report;
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    assert!(report.error_count > 0);
}
