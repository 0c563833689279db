//! Rows whose target is a text: a similar text (`positive`), a completion, or the row's own text.

use super::{Cells, FieldChecks, FileStats, RowFormat};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::json_fields::{JsonObject, string_value};
use crate::dataset::row::{RowErrors, ValidRow};
use crate::task::Target;
use std::borrow::Cow;

pub(super) struct Positive;

impl RowFormat for Positive {
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        positive_row(cells.text, cells.target, cells.second_text)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let fields = object.fields(mapping)?;
        let (text, positive) =
            RowErrors::both(string_value(fields.text, "text"), string_value(fields.target, "positive"))?;
        positive_row(text, positive, fields.second_text)
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

fn positive_row(
    text: Cow<'_, str>,
    positive: Cow<'_, str>,
    negative: Option<Cow<'_, str>>,
) -> Result<ValidRow, RowErrors> {
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
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        completion_row(cells.text, cells.target)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let fields = object.fields(mapping)?;
        let (prompt, completion) =
            RowErrors::both(string_value(fields.text, "prompt"), string_value(fields.target, "completion"))?;
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
fn completion_row(prompt: Cow<'_, str>, completion: Cow<'_, str>) -> Result<ValidRow, RowErrors> {
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
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        raw_text_row(cells.text)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        raw_text_row(string_value(object.fields(mapping)?.text, "text")?)
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

fn raw_text_row(text: Cow<'_, str>) -> Result<ValidRow, RowErrors> {
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
