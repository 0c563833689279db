//! Files as users have them, in `tests/fixtures/user-files`: how each is read, or with which words it is refused.

use crate::dataset::support::WordCounter;
use espalier_core::dataset::{self, Limits, OnBadRows, Options, RequestedFormat, TextEncoding, ValidatedDataset};
use espalier_core::task::RowSchema;
use std::path::{Path, PathBuf};

const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_rows: 1000, max_record_bytes: 1 << 16, max_labels: 100 };

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/user-files").join(name)
}

/// Options of a file, or the words that refuse it.
fn detect(name: &str, requested: &RequestedFormat) -> Result<Options, String> {
    let path = path(name);
    let file_name = path.file_name().and_then(|name| name.to_str());
    dataset::detect_options(&path, requested, (file_name, None), &LIMITS).map_err(|error| error.to_string())
}

/// Options as JSON, and the result of reading the file with them.
fn read_as(name: &str, requested: &RequestedFormat) -> (String, ValidatedDataset) {
    let options = detect(name, requested).unwrap();
    let schema = dataset::infer_schema(&path(name), &options, &RowSchema::DETECTABLE, &LIMITS).unwrap();
    let task = schema.default_task();
    let validated = dataset::validate(&path(name), &options, &task, &WordCounter, &LIMITS).unwrap();
    (serde_json::to_string(&options).unwrap().replace(r#","columns":{},"on_bad_rows":"refuse""#, ""), validated)
}

fn read(name: &str) -> (String, ValidatedDataset) {
    read_as(name, &RequestedFormat::default())
}

/// Codes of the warnings that this test's counter of words does not cause.
fn warning_codes(validated: &ValidatedDataset) -> Vec<&str> {
    let codes = validated.report.warning_counts.keys().map(String::as_str);
    codes.filter(|code| !["truncated", "duplicate", "label_seen_once", "white_space"].contains(code)).collect()
}

fn file_errors(validated: &ValidatedDataset) -> Vec<(Option<u64>, &str, &str)> {
    let errors = validated.report.errors.iter();
    errors.map(|error| (error.line, error.code.as_str(), error.message.as_str())).collect()
}

#[test]
fn readable_files_give_all_their_rows() {
    for (name, options, examples, warnings) in [
        ("01-excel-semicolon/plain.csv", r#"{"format":"csv","separator":";"}"#, 12, &[][..]),
        ("01-excel-semicolon/pipe.csv", r#"{"format":"csv","separator":"|"}"#, 12, &[]),
        ("01-excel-semicolon/sep-line.csv", r#"{"format":"csv","separator":";"}"#, 12, &[]),
        ("01-excel-semicolon/sep-comma.csv", r#"{"format":"csv"}"#, 12, &[]),
        ("02-encodings/excel-unicode-text.tsv", r#"{"format":"tsv","encoding":"utf-16le"}"#, 12, &[]),
        ("02-encodings/excel-unicode-text.txt", r#"{"format":"tsv","encoding":"utf-16le"}"#, 12, &[]),
        ("02-encodings/utf16-no-bom.tsv", r#"{"format":"tsv","encoding":"utf-16le"}"#, 12, &[]),
        ("02-encodings/mac-cr.csv", r#"{"format":"csv"}"#, 12, &[]),
        ("03-header-names/double-bom.csv", r#"{"format":"csv"}"#, 20, &[]),
        ("04-json-array/data-wrapped.json", r#"{"format":"json"}"#, 20, &[]),
        ("04-json-array/lines.json", r#"{"format":"jsonl"}"#, 20, &[]),
        ("04-json-array/pretty-objects.jsonl", r#"{"format":"json"}"#, 20, &[]),
        ("04-json-array/records-indented.json", r#"{"format":"json"}"#, 20, &[]),
        ("04-json-array/records.json", r#"{"format":"json"}"#, 20, &[]),
        ("04-json-array/trailing-commas.jsonl", r#"{"format":"jsonl"}"#, 20, &["trailing_comma"]),
        ("05-parquet/class-labels.parquet", r#"{"format":"parquet"}"#, 6, &["class_names"]),
        ("05-parquet/zstd.parquet", r#"{"format":"parquet"}"#, 6, &["class_names"]),
        ("05-parquet/token-lists.parquet", r#"{"format":"parquet"}"#, 2, &[]),
        ("11-conll/train.conll", r#"{"format":"conll"}"#, 48, &[]),
        ("11-conll/train.tsv", r#"{"format":"conll"}"#, 48, &[]),
        ("11-conll/train-header.tsv", r#"{"format":"conll"}"#, 48, &[]),
        ("11-conll/train.txt", r#"{"format":"conll"}"#, 48, &["not_read"]),
        ("19-tsv-quotes/swallow.tsv", r#"{"format":"tsv","quoting":"none"}"#, 5, &["unquoted"]),
        ("19-tsv-quotes/train.tsv", r#"{"format":"tsv","quoting":"none"}"#, 7, &["unquoted"]),
        ("19-tsv-quotes/backslash.csv", r#"{"format":"csv","quoting":"backslash"}"#, 4, &[]),
        ("20-tab-in-csv/spam_dataset.csv", r#"{"format":"tsv"}"#, 20, &[]),
        ("26-proteins/seqs.fasta", r#"{"format":"fasta"}"#, 60, &[]),
        ("29-other-files/fasttext.txt", r#"{"format":"fasttext"}"#, 20, &[]),
        ("29-other-files/reviews.xlsx", r#"{"format":"xlsx"}"#, 6, &["not_read"]),
    ] {
        let (found, validated) = read(name);
        assert_eq!(found, options, "{name}");
        assert_eq!(file_errors(&validated), [], "{name}");
        assert_eq!((validated.examples.len(), warning_codes(&validated)), (examples, warnings.to_vec()), "{name}");
    }
}

#[test]
fn files_that_hold_no_rows_are_refused_with_their_conversion() {
    for (name, words) in [
        (
            "04-json-array/columns-orient.json",
            "pandas.read_json('rows.json').to_json('rows.jsonl', orient='records', lines=True)",
        ),
        ("04-json-array/hf-splits.json", "the splits \"train\", \"test\": send each as its own file"),
        ("04-json-array/single-quotes.jsonl", "json.dumps(ast.literal_eval(line))"),
        ("29-other-files/book.xlsx", "cannot be unpacked"),
    ] {
        let message = detect(name, &RequestedFormat::default()).unwrap_err();
        assert!(message.contains(words), "{name}: {message}");
    }
    // Its mark is that of a Parquet file; the damage is found when it is read.
    let (_, validated) = read("05-parquet/train-00000-of-00001.parquet");
    let errors = file_errors(&validated);
    assert!(errors[0].1 == "damaged_file" && errors[0].2.contains("Parquet"), "{errors:?}");
    let (_, validated) = read("02-encodings/zip.csv.gz");
    assert!(validated.report.examples > 0, "{:?}", file_errors(&validated));
}

#[test]
fn another_encoding_is_one_error_and_read_where_it_is_named() {
    for name in ["02-encodings/latin1.csv", "02-encodings/cp1252.csv"] {
        let (_, validated) = read(name);
        let errors = file_errors(&validated);
        assert_eq!((errors.len(), errors[0].0, errors[0].1), (1, None, "unknown_encoding"), "{name}: {errors:?}");
        assert!(errors[0].2.contains("`\"encoding\": \"windows-1252\"`"), "{}", errors[0].2);
        let requested = RequestedFormat { encoding: TextEncoding::parse("windows-1252").ok(), ..Default::default() };
        let (options, validated) = read_as(name, &requested);
        assert_eq!(options, r#"{"format":"csv","encoding":"windows-1252"}"#);
        assert_eq!(file_errors(&validated), []);
    }
}

#[test]
fn numbers_that_are_no_json_count_as_missing() {
    let (_, validated) = read("13-na-labels/nan.jsonl");
    let errors = file_errors(&validated);
    assert_eq!(
        errors.iter().map(|error| (error.0, error.1)).collect::<Vec<_>>(),
        [(Some(1), "missing_field"), (Some(4), "missing_field")]
    );
    assert!(errors[0].2.contains("`NaN`"), "{errors:?}");
    let options = Options {
        on_bad_rows: OnBadRows::Skip,
        ..detect("13-na-labels/nan.jsonl", &RequestedFormat::default()).unwrap()
    };
    let task = RowSchema::Label.default_task();
    let validated = dataset::validate(&path("13-na-labels/nan.jsonl"), &options, &task, &WordCounter, &LIMITS).unwrap();
    assert_eq!(validated.examples.len(), 2);
}

#[test]
fn records_of_a_tsv_that_span_lines_are_reported() {
    let requested = RequestedFormat { quoting: Some(dataset::Quoting::Doubled), ..Default::default() };
    let (_, validated) = read_as("19-tsv-quotes/swallow.tsv", &requested);
    assert!(warning_codes(&validated).contains(&"spans_lines"), "{:?}", validated.report.warnings);
}
