//! Row formats: everything about a dataset that depends on its row schema.
//!
//! A new row schema needs a variant of `RowSchema`, an implementation of [`RowFormat`] and a line in [`row_format`].

mod conversation;
mod field_checks;
mod labels;
mod numbers;
mod preference;
mod tags;
mod texts;

use super::column_mapping::ColumnMapping;
use super::diagnostics::{self, Diagnostic};
use super::json_fields::{JsonObject, wrong_type};
use super::labels::LabelStats;
use super::row::{RowErrors, ValidRow};
use crate::task::RowSchema;
use std::borrow::Cow;

/// Reading, normalization and checks of the rows of one schema.
pub(super) trait RowFormat: Sync {
    /// Reads a row of a CSV or TSV file.
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors>;

    /// Reads a row of a JSON lines file.
    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors>;

    /// Error of a file with usable rows from which nothing can be learned, or whose labels are too many.
    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic>;

    /// Whether a label with one example gets a warning.
    fn warns_about_single_labels(&self) -> bool;
}

/// Cells of the mapped columns of one record.
pub(super) struct Cells<'a> {
    pub text: Cow<'a, str>,
    pub second_text: Option<Cow<'a, str>>,
    pub target: Cow<'a, str>,
}

/// Statistics of a file with at least one usable row.
pub(super) struct FileStats<'a> {
    pub example_count: usize,
    pub labels: &'a [LabelStats],
    pub target_count: usize,
    pub max_labels: usize,
}

/// Row format of a schema.
pub(super) fn row_format(schema: RowSchema) -> &'static dyn RowFormat {
    match schema {
        RowSchema::Label => &labels::SingleLabel,
        RowSchema::Labels => &labels::LabelSet,
        RowSchema::Value => &numbers::VALUE,
        RowSchema::Tags => &tags::TaggedTokens,
        RowSchema::Entities => &tags::EntitySpans,
        RowSchema::Positive => &texts::Positive,
        RowSchema::Score => &numbers::SCORE,
        RowSchema::Completion => &texts::Completion,
        RowSchema::Messages => &conversation::Messages,
        RowSchema::Chosen => &preference::Preference,
        RowSchema::Text => &texts::RawText,
    }
}

/// Splits a cell and drops the blank parts.
fn split_non_blank<'a>(cell: Cow<'a, str>, is_separator: impl Fn(char) -> bool) -> Vec<Cow<'a, str>> {
    let is_non_blank = |part: &&str| !part.trim().is_empty();
    match cell {
        Cow::Borrowed(cell) => cell.split(is_separator).filter(is_non_blank).map(Cow::Borrowed).collect(),
        Cow::Owned(cell) => {
            cell.split(is_separator).filter(is_non_blank).map(|part| Cow::Owned(part.to_string())).collect()
        }
    }
}

/// Error for a schema whose rows cannot be written as cells.
fn needs_json(field: &str) -> RowErrors {
    wrong_type(format!("{field} do not fit into a column: send the rows as JSON lines")).into()
}

/// Error for too few or too many labels; `only_label_message` describes a file with a single label, if that is an error.
fn label_error(stats: &FileStats<'_>, only_label_message: impl Fn(&str) -> Option<String>) -> Option<Diagnostic> {
    match stats.labels {
        [] => Some(Diagnostic::new(diagnostics::TOO_FEW_LABELS, "no usable row has a label")),
        [only] => only_label_message(&only.label).map(|message| Diagnostic::new(diagnostics::TOO_FEW_LABELS, message)),
        labels if labels.len() > stats.max_labels => {
            let message = format!(
                "there are more than the {} labels that this server takes: is `label` read from the right column?",
                stats.max_labels
            );
            Some(Diagnostic::new(diagnostics::TOO_MANY_LABELS, message))
        }
        _ => None,
    }
}
