//! Tests of the structure of JSON documents.

use super::*;
use crate::dataset::options::Options;
use std::io::Write;

fn content(text: &str) -> Content {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Content::open(file.path(), &Options::new(Format::Json), 1 << 20).unwrap().unwrap()
}

fn detected(text: &str) -> Result<Format, String> {
    detect_json(&content(text), None).unwrap().map_err(|diagnostic| diagnostic.message)
}

#[test]
fn lines_and_documents_are_told_apart() {
    for text in [
        "{\"text\": \"a\"}\n{\"text\": \"b\"}\n",
        "{\"text\": \"a\"},\n{\"text\": \"b\"},\n",
        "{\"text\": \"a\"}",
        "{\"messages\": [{\"role\": \"user\"}]}\n",
        "{\"tokens\": [\"a\"], \"tags\": [\"O\"]}\n",
        "{\"text\": \"a\"\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n",
    ] {
        assert_eq!(detected(text), Ok(Format::Jsonl), "{text}");
    }
    for text in [
        "[{\"text\": \"a\"}]",
        "[]",
        "\u{feff}\n [\n{\"text\": \"a\"}]",
        "{\n\"text\": \"a\"\n}\n{\n\"text\": \"b\"\n}\n",
        "{\"data\": [{\"text\": \"a\"}]}",
        "{\"version\": 1, \"data\": [{\"text\": \"a\"}], \"x\": null}",
        "{\"anything\": [{\"text\": \"a\"}]}",
        "{\"train\": [{\"text\": \"a\"}]}",
        "[\n{\"text\": \"a\"},\n{\"text\": \"b\"},\n{\"text\": \"c\"}\n]\n",
        "{\"text\": \"a\"}{\"text\": \"b\"}",
        "{\"status\": 1, \"results\": [{\"text\": \"a\"}]}",
        "[[\"a\", {\"entities\": []}],\n[\"b\", {\"entities\": []}]]",
        "[\n[\"a\", {\"entities\": []}],\n[\"b\", {\"entities\": []}]\n]",
        "{\"classes\": [\"X\"], \"annotations\": [[\"a\", {\"entities\": []}]]}",
    ] {
        assert_eq!(detected(text), Ok(Format::Json), "{text}");
    }
}

#[test]
fn documents_without_rows_are_refused_with_their_conversion() {
    for (text, conversion) in [
        ("{\"text\": {\"0\": \"a\"}, \"label\": {\"0\": \"x\"}}", "read_json('rows.json')"),
        ("{\"text\": [\"a\"], \"label\": [\"x\"]}", "read_json('rows.json')"),
        ("{\"0\": {\"text\": \"a\"}, \"1\": {\"text\": \"b\"}}", "orient='index'"),
        ("{\"columns\": [\"text\"], \"index\": [0], \"data\": [[\"a\"]]}", "orient='split'"),
        ("{\"train\": [{\"text\": \"a\"}], \"test\": [{\"text\": \"b\"}]}", "jq -c '.[\"train\"][]'"),
        ("[[\"a\", \"x\"]]", "DataFrame"),
        ("[\"a\", \"b\"]", "jq -c"),
        ("[\"a\", \"b\"]\n[\"c\", \"d\"]\n", "{text: .[0], positive: .[1]}"),
        ("[{\"role\": \"user\"}]\n[{\"role\": \"user\"}]\n", "{messages: .}"),
        ("{'text': 'a'}\n{'text': 'b'}\n", "literal_eval"),
        ("[{'text': 'a'}]", "literal_eval"),
    ] {
        let message = detected(text).unwrap_err();
        assert!(message.contains(conversion), "{message}");
    }
}

#[test]
fn position_of_the_rows_is_that_of_their_array() {
    let text = "{\"version\": \"1\",\n \"rows\": [{\"text\": \"a\"}], \"n\": 3}";
    let start = Position { offset: text.find('[').unwrap() as u64, line: 2 };
    let other_names = vec!["version".to_string(), "n".to_string()];
    let expected = RowsPosition::Member { name: "rows".to_string(), start, other_names };
    assert_eq!(find_rows(content(text).lines().unwrap()).unwrap(), expected);
    let start = Position { offset: 1, line: 1 };
    let pairs = content(" [[\"a\", {}]]");
    assert_eq!(find_rows(pairs.lines().unwrap()).unwrap(), RowsPosition::Array { start });
    assert_eq!(find_rows(content("[{\"rows\": [{}]}]").lines().unwrap()).unwrap(), RowsPosition::Document);
}
