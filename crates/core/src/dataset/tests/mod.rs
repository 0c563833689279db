//! Files as users have them: what each is read as, what the report says of it, or why it is refused.

use super::*;
use crate::model::VocabularyCount;
use crate::task::{Example, RowSchema, Target};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

mod columns;
mod conversations;
mod labels;
mod large_records;

/// Counts each example as one token.
struct OneToken;

impl CountTokens for OneToken {
    fn count_tokens(&self, _example: &Example) -> Result<Vec<TokenCount>> {
        Ok(vec![TokenCount { tokens: 1, truncated: false, vocabulary: VocabularyCount::default() }])
    }
}

const LIMITS: Limits = Limits { max_bytes: 1 << 24, max_rows: 1 << 20, max_record_bytes: 1 << 20, max_labels: 1000 };

/// Checks a file of the fixtures, whose format is found in its content.
fn check(file: &str, settings: &Value) -> ValidatedDataset {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/user-files").join(file);
    let options = detect_options(&path, &RequestedFormat::default(), (Some(file), None), &LIMITS).unwrap();
    check_path(&path, serde_json::to_value(options).unwrap(), settings)
}

fn check_text(format: &str, text: &str, settings: &Value) -> ValidatedDataset {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    check_path(file.path(), json!({"format": format}), settings)
}

fn check_path(path: &Path, mut options: Value, settings: &Value) -> ValidatedDataset {
    options.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let options: Options = serde_json::from_value(options).unwrap();
    let schema = infer_schema(path, &options, &RowSchema::DETECTABLE, &LIMITS).unwrap();
    validate(path, &options, &schema.default_task(), &OneToken, &LIMITS).unwrap()
}

/// Number of examples, messages of the errors, and rows that are left out.
fn outcome(format: &str, text: &str, settings: Value) -> (u64, Vec<String>, Vec<(String, u64)>) {
    let report = check_text(format, text, &settings).report;
    let errors = report.errors.into_iter().map(|error| error.message).collect();
    (report.examples, errors, report.left_out.into_iter().collect())
}

/// Checks that a file is read: as rows of a schema, this number of examples, and a report with these sentences.
#[track_caller]
fn assert_read(file: &str, settings: Value, schema: RowSchema, examples: u64, sentences: &[&str]) -> ValidatedDataset {
    let dataset = check(file, &settings);
    let report = &dataset.report;
    assert_eq!(report.error_count, 0, "{file}: {:?}", report.errors);
    assert_eq!(
        (report.target, report.examples),
        (schema, examples),
        "{file}: {:?} {:?}",
        report.mapping,
        report.left_out
    );
    for sentence in sentences {
        assert!(report.mapping.iter().any(|note| note.contains(sentence)), "{file}: {:?}", report.mapping);
    }
    dataset
}

/// Checks that a file is refused with one error for the file as a whole, or in `count` rows.
#[track_caller]
fn assert_refused(file: &str, settings: Value, count: u64, message: &str) {
    let report = check(file, &settings).report;
    assert_eq!(report.error_count, count, "{file}: {:?} {:?}", report.errors, report.mapping);
    assert!(report.errors.iter().any(|error| error.message.contains(message)), "{file}: {:?}", report.errors);
}

fn label_names(dataset: &ValidatedDataset) -> Vec<&str> {
    dataset.report.labels.iter().map(|count| count.label.as_str()).collect()
}

fn messages(example: &Example) -> Value {
    match &example.target {
        Target::Conversation(conversation) => serde_json::to_value(&conversation.messages).unwrap(),
        Target::ConversationPreference { chosen, .. } => serde_json::to_value(&chosen.messages).unwrap(),
        other => panic!("{other:?}"),
    }
}
