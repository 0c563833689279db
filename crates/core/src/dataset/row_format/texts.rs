//! Rows whose target is a text: a similar text (`positive`), a completion, or the row's own text.

use super::conversation::{completion_conversation, prompt_text};
use super::{FieldChecks, Fields, FileStats, RowFormat};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::field_value::{FieldValue, list_items, string_value, wrong_type};
use crate::dataset::record::Record;
use crate::dataset::row::{UnusableRow, ValidRow};
use crate::task::Target;
use std::borrow::Cow;

pub(super) struct Positive;

impl RowFormat for Positive {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        let fields = Fields::of(record, mapping)?;
        let negative = fields.second_text.map(|value| first_text(value, "negative")).transpose()?.flatten();
        let positive = first_text(fields.target, "positive").map(Option::unwrap_or_default);
        let (text, positive) = UnusableRow::both(fields.text.as_text("text"), positive)?;
        positive_row(text, positive, negative)
    }

    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        (stats.example_count < 2).then(|| {
            let message =
                "there is one usable row: its text is compared with the positives of other rows, so send more";
            Diagnostic::new(diagnostics::TOO_FEW_EXAMPLES, message)
        })
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

/// A text, or the only text of a list; `None` for an empty list.
fn first_text<'r>(value: &'r FieldValue<'_>, field: &str) -> Result<Option<Cow<'r, str>>, Diagnostic> {
    let FieldValue::Json(raw) = value else { return value.as_text(field).map(Some) };
    if !raw.get().starts_with('[') {
        return value.as_text(field).map(Some);
    }
    let mut texts = list_items(raw, field)?.into_iter().map(|item| string_value(item, field));
    match (texts.next(), texts.next()) {
        (first, None) => first.transpose(),
        _ => Err(wrong_type(format!("`{field}` has several texts, and one is read: write a row for each of them"))),
    }
}

fn positive_row(
    text: Cow<'_, str>,
    positive: Cow<'_, str>,
    negative: Option<Cow<'_, str>>,
) -> Result<ValidRow, UnusableRow> {
    let mut checks = FieldChecks::default();
    let text = checks.trim("the text", text);
    let negative = checks.trim_optional("the negative", negative);
    let positive = checks.trim("the positive", positive);
    checks.require_text("text", &text);
    checks.require_text("positive", &positive);
    let texts = [Some(text.as_ref()), Some(positive.as_ref()), negative.as_deref()];
    let trimmed_fields = checks.finish::<&str>(&texts, &[])?;
    Ok(ValidRow {
        // A text may have several positives.
        duplicate_key: DuplicateKey::whole_row(&texts),
        text: text.into_owned(),
        text_pair: None,
        target: Target::Positive { positive: positive.into_owned(), negative: negative.map(Cow::into_owned) },
        trimmed_fields,
        warning: None,
    })
}

pub(super) struct Completion;

impl RowFormat for Completion {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        let fields = Fields::of(record, mapping)?;
        if let Some(row) = completion_conversation(record, mapping, fields.text, fields.target)? {
            return Ok(row);
        }
        let prompt = prompt_text(record, mapping, fields.text);
        let (prompt, completion) = UnusableRow::both(prompt, fields.target.as_text("completion"))?;
        completion_row(prompt, completion)
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

/// White space is part of a prompt and of its completion, and is kept.
fn completion_row(prompt: Cow<'_, str>, completion: Cow<'_, str>) -> Result<ValidRow, UnusableRow> {
    let mut checks = FieldChecks::default();
    checks.require_text("prompt", &prompt);
    checks.require_text("completion", &completion);
    let texts = [Some(prompt.as_ref()), Some(completion.as_ref())];
    let trimmed_fields = checks.finish::<&str>(&texts, &[])?;
    Ok(ValidRow {
        // A prompt may have several completions.
        duplicate_key: DuplicateKey::whole_row(&texts),
        text: prompt.into_owned(),
        text_pair: None,
        target: Target::Completion(completion.into_owned()),
        trimmed_fields,
        warning: None,
    })
}

pub(super) struct RawText;

impl RowFormat for RawText {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        raw_text_row(Fields::of(record, mapping)?.text.as_text("text")?)
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

fn raw_text_row(text: Cow<'_, str>) -> Result<ValidRow, UnusableRow> {
    let mut checks = FieldChecks::default();
    let text = checks.trim("the text", text);
    checks.require_text("text", &text);
    let trimmed_fields = checks.finish::<&str>(&[Some(text.as_ref())], &[])?;
    Ok(ValidRow {
        duplicate_key: DuplicateKey::whole_row(&[Some(text.as_ref())]),
        text: text.into_owned(),
        text_pair: None,
        target: Target::Text,
        trimmed_fields,
        warning: None,
    })
}
