//! A small file for each code.

use serde_json::{Value, json};
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Encoder,
    Decoder,
}

pub struct Sample {
    pub code: &'static str,
    pub file_name: &'static str,
    pub content: Vec<u8>,
    pub settings: Value,
    pub base: Base,
}

fn sample(code: &'static str, file_name: &'static str, content: impl Into<Vec<u8>>) -> Sample {
    let is_conversation = file_name.starts_with("chat");
    let base = if is_conversation { Base::Decoder } else { Base::Encoder };
    Sample { code, file_name, content: content.into(), settings: json!({}), base }
}

fn with_settings(code: &'static str, file_name: &'static str, content: &str, settings: Value) -> Sample {
    Sample { settings, ..sample(code, file_name, content) }
}

/// A table with 24 good rows of two labels before these lines.
fn after_good_rows(lines: &str) -> String {
    let rows: String =
        (0..24).map(|row| format!("the lamp {row} works,{}\n", if row % 2 == 0 { "a" } else { "b" })).collect();
    format!("text,label\n{rows}{lines}")
}

fn fixture(path: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/user-files");
    std::fs::read(folder.join(path)).unwrap()
}

pub fn samples() -> Vec<Sample> {
    row_errors().into_iter().chain(file_errors()).chain(warnings()).collect()
}

fn row_errors() -> Vec<Sample> {
    let many: String = (0..1001).map(|row| format!("text {row},{},train,1\n", row % 2)).collect();
    let split_and_weight = |last: &str| format!("text,label,split,weight\n{many}last,1,{last}\n");
    let call = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "tools": [{"type": "function", "function": {"name": "weather"}}]}"#;
    let only_user = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n";
    let cell = "word ".repeat(2000);
    vec![
        sample("bad_utf8", "rows.csv", [after_good_rows("").as_bytes(), b"the caf\xe9,a\n"].concat()),
        sample("broken_quote", "rows.csv", after_good_rows("\"the chair,a\n")),
        sample("chat_template_refused", "chat.jsonl", call.replace('\n', "")),
        sample("empty_label", "rows.csv", after_good_rows("the chair,\n")),
        sample("empty_text", "rows.csv", after_good_rows(",a\n")),
        sample(
            "entity_outside",
            "rows.jsonl",
            r#"{"text": "Riga", "entities": [{"start": 2, "end": 9, "label": "city"}]}"#,
        ),
        sample("field_count", "rows.csv", after_good_rows("the chair, and the lamp,a\n")),
        sample("label_too_long", "rows.csv", after_good_rows(&format!("the chair,{}\n", "a".repeat(2000)))),
        sample(
            "missing_field",
            "rows.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\"}\n{\"text\": \"c\", \"label\": null}\n",
        ),
        sample("nothing_to_learn", "chat.jsonl", only_user),
        sample("nul_character", "rows.csv", after_good_rows("the\0chair,a\n")),
        sample(
            "overlapping_entities",
            "rows.jsonl",
            r#"{"text": "New York", "entities": [{"start": 0, "end": 8, "label": "city"}, {"start": 4, "end": 8, "label": "name"}]}"#,
        ),
        sample("record_too_long", "rows.csv", after_good_rows(&format!("{cell},a\n"))),
        sample("tag_count", "rows.jsonl", r#"{"tokens": ["Riga", "waits"], "tags": ["B-city"]}"#),
        sample("unknown_split", "rows.csv", split_and_weight("maybe,1")),
        with_settings("unnamed_label", "rows.csv", "text,label\na,0\nb,1\nc,2\n", json!({"label_names": ["x", "y"]})),
        sample(
            "unreadable_record",
            "rows.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"\n",
        ),
        sample("unsupported_weight", "rows.csv", split_and_weight("train,0.5")),
        sample("wrong_type", "rows.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": 7, \"label\": \"y\"}\n"),
    ]
}

fn file_errors() -> Vec<Sample> {
    let labels =
        |count: usize| (0..2 * count).map(|row| format!("text {row},label {}\n", row % count)).collect::<String>();
    let ids: String = (0..25).map(|row| format!("text {row},T-{row}\n")).collect();
    let rows: String = (0..2001).map(|row| format!("text {row},{}\n", row % 2)).collect();
    vec![
        sample("damaged_file", "rows.parquet", fixture("05-parquet/train-00000-of-00001.parquet")),
        sample("duplicate_column", "rows.csv", "text,label,text\na,x,b\n"),
        with_settings("invalid_columns", "rows.csv", "text,label\na,x\n", json!({"columns": {"label": "text"}})),
        sample("invalid_header", "rows.csv", format!("{},label\na,x\n", "a".repeat(9000))),
        with_settings("label_names", "rows.csv", "text,label\na,0\nb,1\n", json!({"label_names": ["x", "x"]})),
        sample(
            "label_names",
            "rows.jsonl",
            "{\"text\": \"a\", \"labels\": [1, 0, 0]}\n{\"text\": \"b\", \"labels\": [1, 1, 0]}\n",
        ),
        sample("label_separator", "rows.csv", fixture("06-multi-label-forms/icd-codes.csv")),
        sample("labels_like_lists", "rows.csv", fixture("06-multi-label-forms/comma-in-label.csv")),
        sample("labels_like_numbers", "rows.jsonl", fixture("17-sts/hf-label.jsonl")),
        sample("missing_column", "rows.csv", "review,stars\nIt works.,5\nIt broke.,1\nIt is fine.,5\nIt rusts.,1\n"),
        sample("no_usable_row", "rows.csv", "text,label\n"),
        sample("number_format", "rows.csv", "text,value\na,\"3,5\"\nb,\"4,25\"\n"),
        sample("too_few_examples", "rows.jsonl", r#"{"anchor": "a", "positive": "b"}"#),
        sample("too_few_labels", "rows.csv", "text,label\na,spam\nb,spam\n"),
        sample("too_few_values", "rows.csv", "text,value\na,3.5\nb,3.5\n"),
        sample("too_many_bytes", "rows.csv", after_good_rows(&"the chair,a\n".repeat(9000))),
        sample("too_many_labels", "rows.csv", format!("text,label\n{}", labels(31))),
        sample("too_many_rows", "rows.csv", format!("text,label\n{rows}")),
        sample("unique_labels", "rows.csv", format!("text,label\n{ids}")),
        sample("unknown_encoding", "rows.csv", fixture("02-encodings/cp1252.csv")),
        sample("unknown_format", "rows.txt", "The lamp broke.\nThe chair is fine.\n"),
        sample("unknown_format", "rows.json", fixture("04-json-array/hf-splits.json")),
        sample("unknown_label", "rows.csv", "text,label\na,a\nb,b\nc,c\n"),
        sample("unsupported_column", "rows.csv", "text,label,weight\na,x,2\nb,y,0.5\n"),
    ]
}

fn warnings() -> Vec<Sample> {
    let values: String = (0..40).map(|row| format!("text {row},{row}\n")).collect();
    let rare: String = (0..60).map(|row| format!("text {row},no\n")).collect();
    let long = "the lamp works ".repeat(200);
    let entity = r#"{"text": "In Riga.", "entities": [{"start": 3, "end": 5, "label": "city"}]}"#;
    vec![
        sample("class_names", "rows.parquet", fixture("05-parquet/class-labels.parquet")),
        sample("conflicting_labels", "rows.csv", after_good_rows("the lamp 0 works,b\n")),
        sample("cut_word", "rows.jsonl", entity),
        sample("duplicate", "rows.csv", after_good_rows("the lamp 0 works,a\n")),
        sample("label_seen_once", "rows.csv", after_good_rows("the chair works,c\n")),
        sample("no_label", "rows.fasta", ">p1\nMKTAYI\n>p2|basic\nMKRKRK\n"),
        sample("not_read", "rows.xlsx", fixture("29-other-files/reviews.xlsx")),
        sample("not_read", "rows.conll", fixture("11-conll/train.txt")),
        sample("outliers", "rows.csv", format!("text,value\n{values}last,99000\n")),
        sample("rare_label", "rows.csv", format!("text,label\n{rare}first,yes\nlast,yes\n")),
        sample("shared_with_validation", "rows.csv", after_good_rows("")),
        sample("similar_labels", "rows.csv", after_good_rows("the chair works,A\nthe chair does,A\n")),
        with_settings(
            "spans_lines",
            "rows.tsv",
            "text\tlabel\n\"the lamp\nworks\"\ta\nthe chair\tb\n",
            json!({"quoting": "doubled"}),
        ),
        sample(
            "trailing_comma",
            "rows.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"},\n{\"text\": \"b\", \"label\": \"y\"},\n",
        ),
        sample("truncated", "rows.csv", after_good_rows(&format!("{long},a\n"))),
        sample("unknown_tokens", "rows.csv", after_good_rows("\u{1f600} \u{1f601} \u{1f602},a\n")),
        sample("unknown_tokens", "rows.csv", "text,label\n\u{1f600} \u{1f601},a\n\u{1f602} \u{1f603},b\n"),
        sample("unquoted", "rows.tsv", fixture("19-tsv-quotes/train.tsv")),
        sample("white_space", "rows.csv", after_good_rows(" the chair works,a\n")),
    ]
}
