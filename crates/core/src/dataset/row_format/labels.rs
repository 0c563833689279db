//! Rows of a text, an optional second text, and one label (`label`) or a set of labels (`labels`).

use super::{Cells, FieldChecks, FileStats, RowFormat, label_error, split_non_blank, trim_value};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{Diagnostic, quote};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::json_fields::{JsonObject, label_list, label_value, string_value};
use crate::dataset::row::{RowErrors, ValidRow};
use crate::task::Target;
use std::borrow::Cow;
use std::collections::BTreeSet;

pub(super) struct SingleLabel;

impl RowFormat for SingleLabel {
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        single_label_row(cells.text, cells.second_text, cells.target)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let fields = object.fields(mapping)?;
        let (text, label) = RowErrors::both(string_value(fields.text, "text"), label_value(fields.target, "`label`"))?;
        single_label_row(text, fields.second_text, label)
    }

    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        label_error(stats, |label| {
            let label = quote(label);
            Some(format!("every usable row has the label {label}: a classifier needs at least two labels"))
        })
    }

    fn warns_about_single_labels(&self) -> bool {
        true
    }
}

fn single_label_row(
    text: Cow<'_, str>,
    second_text: Option<Cow<'_, str>>,
    label: Cow<'_, str>,
) -> Result<ValidRow, RowErrors> {
    let mut checks = FieldChecks::default();
    let text = checks.trim("the text", text);
    let text_pair = checks.trim_optional("the text pair", second_text);
    let label = checks.trim("the label", label);
    checks.require_text("text", &text);
    let inputs = [Some(text.as_ref()), text_pair.as_deref()];
    let trimmed_fields = checks.finish(&inputs, std::slice::from_ref(&label))?;
    Ok(ValidRow {
        duplicate_key: DuplicateKey::with_target(&inputs, label.as_ref()),
        text: text.into_owned(),
        text_pair: text_pair.map(Cow::into_owned),
        target: Target::Label(label.into_owned()),
        trimmed_fields,
        warning: None,
    })
}

pub(super) struct LabelSet;

impl RowFormat for LabelSet {
    /// The labels of a cell are separated by semicolons.
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        let labels = split_non_blank(cells.target, |character| character == ';');
        label_set_row(cells.text, cells.second_text, labels)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let fields = object.fields(mapping)?;
        let (text, labels) = RowErrors::both(string_value(fields.text, "text"), label_list(fields.target, "labels"))?;
        label_set_row(text, fields.second_text, labels)
    }

    /// A single label is allowed: rows with and without it differ.
    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        label_error(stats, |_| None)
    }

    fn warns_about_single_labels(&self) -> bool {
        true
    }
}

fn label_set_row(
    text: Cow<'_, str>,
    second_text: Option<Cow<'_, str>>,
    labels: Vec<Cow<'_, str>>,
) -> Result<ValidRow, RowErrors> {
    let mut checks = FieldChecks::default();
    let text = checks.trim("the text", text);
    let text_pair = checks.trim_optional("the text pair", second_text);
    let labels: Vec<Cow<'_, str>> = labels.into_iter().map(trim_value).collect();
    checks.require_text("text", &text);
    let inputs = [Some(text.as_ref()), text_pair.as_deref()];
    let trimmed_fields = checks.finish(&inputs, &labels)?;
    let labels: Vec<String> = labels.into_iter().map(Cow::into_owned).collect::<BTreeSet<_>>().into_iter().collect();
    Ok(ValidRow {
        duplicate_key: DuplicateKey::with_target(&inputs, labels.join("; ")),
        text: text.into_owned(),
        text_pair: text_pair.map(Cow::into_owned),
        target: Target::MultiLabel(labels),
        trimmed_fields,
        warning: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str, label: &str) -> Vec<&'static str> {
        let errors = single_label_row(text.into(), None, label.into()).err();
        errors.into_iter().flatten().map(|error| error.code).collect()
    }

    #[test]
    fn reports_every_error_of_a_row() {
        assert_eq!(codes(" \t", "\u{a0}"), ["empty_text", "empty_label"]);
        assert_eq!(codes("a\0b", "x"), ["nul_character"]);
        assert_eq!(codes("a", &"x".repeat(1001)), ["label_too_long"]);
        assert!(codes("a", &"é".repeat(1000)).is_empty());
    }

    #[test]
    fn trims_and_reports_whitespace() {
        let row = single_label_row(" a b\n".into(), Some("  ".into()), "x ".to_string().into()).unwrap();
        assert_eq!((row.text.as_str(), row.text_pair, row.target), ("a b", None, Target::Label("x".to_string())));
        assert_eq!(row.trimmed_fields, ["the text", "the label"]);
    }
}
