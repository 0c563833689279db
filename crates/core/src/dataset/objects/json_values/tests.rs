//! Tests of the values of JSON documents.

use super::*;
use std::io::Write;

fn values(text: &str, max_value_bytes: usize) -> Vec<(u64, Result<String, &'static str>)> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut values = JsonValues::new(LineSource::new(file).unwrap(), max_value_bytes, 1 << 20);
    let mut all = Vec::new();
    while let Some(object) = values.next_object().unwrap() {
        all.push((object.line, object.text.map(Cow::into_owned).map_err(|diagnostic| diagnostic.code)));
    }
    all
}

fn complete(expected: &[(u64, &str)]) -> Vec<(u64, Result<String, &'static str>)> {
    expected.iter().map(|(line, text)| (*line, Ok(text.to_string()))).collect()
}

#[test]
fn elements_and_objects_over_several_lines_have_their_lines() {
    let expected = complete(&[(2, "{\n\"a\": [1, \"}\"]\n}"), (5, "{\"b\": \"\\\"\"}"), (6, "3"), (7, "\"x\"")]);
    assert_eq!(values("[\n{\n\"a\": [1, \"}\"]\n},\n{\"b\": \"\\\"\"},\n3,\n\"x\"]\n", 100), expected);
    let expected = complete(&[(1, "{\n\"a\": 1}"), (3, "{\"b\": 2}")]);
    assert_eq!(values("{\n\"a\": 1}\n{\"b\": 2}", 100), expected);
    assert_eq!(values(" [ ]\n", 100), []);
}

#[test]
fn values_on_one_line_are_counted() {
    assert_eq!(
        values("[{\"a\": 1}, {\"a\": 2}, {\"a\": 3}]", 100),
        complete(&[(1, "{\"a\": 1}"), (2, "{\"a\": 2}"), (3, "{\"a\": 3}")])
    );
}

#[test]
fn value_that_does_not_end_hides_no_other_values() {
    let broken = Err("unreadable_record");
    let text = "[\n  {\n    \"a\": [1, 2\n  },\n  {\n    \"a\": \"x\n  },\n  {\"a\": 3},\n  {\"a\": {\n";
    let expected = vec![(2, broken.clone()), (5, broken.clone()), (8, Ok("{\"a\": 3}".to_string())), (9, broken)];
    assert_eq!(values(text, 100), expected);
    let expected = vec![(1, Err("unreadable_record")), (2, Ok("{\"b\": 2}".to_string()))];
    assert_eq!(values("{\"a\": [1\n{\"b\": 2}\n", 100), expected);
}

#[test]
fn long_value_is_skipped_to_its_end() {
    let text = format!("[{{\"a\": \"{}\"}},\n{{\"a\": 1}}]", "x".repeat(200_000));
    assert_eq!(values(&text, 100), vec![(1, Err("record_too_long")), (2, Ok("{\"a\": 1}".to_string()))]);
}
