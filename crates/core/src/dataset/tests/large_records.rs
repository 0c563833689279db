//! Records with very many fields: time and memory grow with the bytes of a file, not with their square.

use super::*;
use std::fmt::Write;

#[test]
fn preview_of_objects_with_ever_new_names_ends() {
    let mut text = String::new();
    for row in 0..40 {
        text.push_str(r#"{"text": "a", "label": "b""#);
        (0..20_000).for_each(|field| write!(text, r#","f{row}_{field}":null"#).unwrap());
        text.push_str("}\n");
    }
    let report = check_text("jsonl", &text, &json!({})).report;
    assert_eq!((report.rows, report.examples), (40, 40));
    assert!(report.unread_columns.len() < 100_000, "{} columns", report.unread_columns.len());
}

#[test]
fn table_of_many_columns_is_read_by_their_names() {
    let names: Vec<String> = (0..30_000).map(|index| format!("c{index}")).collect();
    let header = format!("text,{}\n", names.join(","));
    let row = |text: &str, flag: &str| format!("{text}{}\n", format!(",{flag}").repeat(names.len()));
    let text = header + &row("a", "0") + &row("b", "1");
    let report = check_text("csv", &text, &json!({"label_names": names})).report;
    assert_eq!((report.target, report.rows, report.labels.len()), (RowSchema::Labels, 2, names.len()));
    assert_eq!(report.errors[0].code, "too_many_labels");
}

#[test]
fn byte_order_marks_are_skipped_in_any_number() {
    let marks = "\u{feff}".repeat(300_000);
    let report = check_text("csv", &format!("{marks}text,label\na,x\nb,y\n"), &json!({})).report;
    assert_eq!((report.examples, report.error_count), (2, 0), "{:?}", report.errors);
}
