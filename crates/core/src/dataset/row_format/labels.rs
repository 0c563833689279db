//! Rows of a text, an optional second text, and one label (`label`) or a set of labels (`labels`).

use super::conversation::labelled_messages;
use super::{FieldChecks, Fields, FileStats, RowFormat, label_error, second_text, split_non_blank, trim_value};
use crate::dataset::choices::read_choices;
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{Diagnostic, quote};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::field_value::{FieldValue, wrong_type};
use crate::dataset::label_checks;
use crate::dataset::record::Record;
use crate::dataset::row::{UnusableRow, ValidRow};
use crate::dataset::row_filters::rejected_label;
use crate::task::Target;
use std::borrow::Cow;
use std::collections::BTreeSet;

pub(super) struct SingleLabel;

impl RowFormat for SingleLabel {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        if mapping.has_labelled_messages {
            let (text, label) = labelled_messages(record, mapping)?;
            return single_label_row(text.into(), None, label.into());
        }
        let fields = Fields::of(record, mapping)?;
        let second_text = fields.second_text("text_pair")?;
        let label = single_label(fields.target, mapping).map(|label| match mapping.filters.is_rejected(record) {
            true => Cow::Owned(rejected_label(&label)),
            false => label,
        });
        let (text, label) = UnusableRow::both(fields.text.as_text("text"), label)?;
        single_label_row(text, second_text, label)
    }

    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        let error = label_error(stats, |label| {
            let label = quote(label);
            Some(format!("every usable row has the label {label}: a classifier needs at least two labels"))
        });
        error.or_else(|| label_checks::single_label_error(stats.labels, stats.example_count, stats.is_label_mapped))
    }

    fn warns_about_single_labels(&self) -> bool {
        true
    }
}

/// One label: a scalar, or a list or choices of one.
fn single_label<'r>(value: &'r FieldValue<'_>, mapping: &ColumnMapping) -> Result<Cow<'r, str>, Diagnostic> {
    let several = match read_choices(value)? {
        Some(choices) => Some(choices.into_iter().map(Cow::Owned).collect()),
        None if value.is_list_notation() => value.as_label_list("label")?,
        None => None,
    };
    match several {
        None => mapping.labels.name(value.as_label("`label`")?),
        Some(labels) => match <[Cow<'r, str>; 1]>::try_from(mapping.labels.names(labels)?) {
            Ok([label]) => Ok(label),
            Err(labels) => Err(wrong_type(format!(
                "`label` is a list of {} labels, and has to be one label: `\"columns\": {{\"labels\": {}}}` reads several",
                labels.len(),
                quote(&mapping.target_column)
            ))),
        },
    }
}

fn single_label_row(
    text: Cow<'_, str>,
    second_text: Option<Cow<'_, str>>,
    label: Cow<'_, str>,
) -> Result<ValidRow, UnusableRow> {
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
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        if !mapping.labels.indicator_columns.is_empty() {
            let text = record.required("text", &mapping.text_column)?.as_text("text");
            let pair = second_text(record, mapping)?.map(|value| value.as_text("text_pair")).transpose()?;
            let (text, labels) = UnusableRow::both(text, indicated_labels(record, &mapping.labels.indicator_columns))?;
            return label_set_row(text, pair, labels);
        }
        let fields = Fields::of(record, mapping)?;
        let second_text = fields.second_text("text_pair")?;
        let (text, labels) = UnusableRow::both(fields.text.as_text("text"), label_set(fields.target, mapping))?;
        label_set_row(text, second_text, labels)
    }

    /// A single label is allowed: rows with and without it differ.
    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        let joined = || label_checks::label_set_error(stats.labels).filter(|_| !stats.has_label_separator);
        label_error(stats, |_| None).or_else(joined)
    }

    fn warns_about_single_labels(&self) -> bool {
        true
    }
}

/// Labels of a list, of choices, or of a text with separators.
fn label_set<'r>(value: &'r FieldValue<'_>, mapping: &ColumnMapping) -> Result<Vec<Cow<'r, str>>, Diagnostic> {
    if let Some(choices) = read_choices(value)? {
        return mapping.labels.names(choices.into_iter().map(Cow::Owned).collect());
    }
    if let Some(labels) = value.as_label_list("labels")? {
        return mapping.labels.names(labels);
    }
    let separator = mapping.labels.separator;
    mapping.labels.names(split_non_blank(value.as_text("labels")?, |character| character == separator))
}

/// Names of the columns that have a 1.
fn indicated_labels<'r>(record: &Record<'_>, columns: &'r [String]) -> Result<Vec<Cow<'r, str>>, Diagnostic> {
    let mut labels = Vec::new();
    for column in columns {
        match record.required(column, column)?.as_flag() {
            Some(true) => labels.push(Cow::Borrowed(column.as_str())),
            Some(false) => {}
            None => return Err(wrong_type(format!("the column {} has to hold 0 or 1", quote(column)))),
        }
    }
    Ok(labels)
}

fn label_set_row(
    text: Cow<'_, str>,
    second_text: Option<Cow<'_, str>>,
    labels: Vec<Cow<'_, str>>,
) -> Result<ValidRow, UnusableRow> {
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
        match single_label_row(text.into(), None, label.into()) {
            Err(UnusableRow::Invalid(errors)) => errors.into_iter().map(|error| error.code).collect(),
            _ => Vec::new(),
        }
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
