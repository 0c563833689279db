//! Row formats: everything about a dataset that depends on its row schema.
//!
//! A new row schema needs a variant of `RowSchema`, an implementation of [`RowFormat`] and a line in [`row_format`].
//! This file also holds the checks that several schemas share, and the rows with a number as target (`value`, `score`).

use super::column_mapping::ColumnMapping;
use super::diagnostics::{self, Diagnostic};
use super::json_fields::{JsonObject, wrong_type};
use super::labels::LabelStats;
use super::row::{RowErrors, ValidRow};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::json_fields::{number_value, parse_number, string_value};
use crate::task::row_schema::SecondText;
use crate::task::{RowSchema, Target};
use std::borrow::Cow;

mod conversation;
mod labels;
mod tags;
mod texts;

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
        RowSchema::Value => &VALUE,
        RowSchema::Tags => &tags::TaggedTokens,
        RowSchema::Entities => &tags::EntitySpans,
        RowSchema::Positive => &texts::Positive,
        RowSchema::Score => &SCORE,
        RowSchema::Completion => &texts::Completion,
        RowSchema::Messages => &conversation::Messages,
        RowSchema::Chosen => &conversation::Preference,
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

/// Longest label in characters. A longer one is probably a text that was read as a label.
const MAX_LABEL_CHARACTERS: usize = 1000;

/// Trims and checks the fields of one row, and collects its errors.
#[derive(Default)]
struct FieldChecks {
    errors: Vec<Diagnostic>,
    trimmed_fields: Vec<&'static str>,
}

impl FieldChecks {
    /// Removes surrounding white space. `name` is listed as trimmed if something is left.
    pub fn trim<'a>(&mut self, name: &'static str, value: Cow<'a, str>) -> Cow<'a, str> {
        let untrimmed_bytes = value.len();
        let trimmed = trim_value(value);
        if trimmed.len() < untrimmed_bytes && !trimmed.is_empty() {
            self.trimmed_fields.push(name);
        }
        trimmed
    }

    /// Removes surrounding white space; a blank value counts as absent.
    pub fn trim_optional<'a>(&mut self, name: &'static str, value: Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        value.map(|value| self.trim(name, value)).filter(|value| !value.is_empty())
    }

    /// Adds an error for an empty text.
    pub fn require_text(&mut self, name: &str, value: &str) {
        self.require(diagnostics::EMPTY_TEXT, name, value);
    }

    pub fn push(&mut self, error: Diagnostic) {
        self.errors.push(error);
    }

    /// Adds the errors that any text and any label may have, and returns the names of the trimmed fields.
    pub fn finish<L: AsRef<str>>(
        mut self,
        texts: &[Option<&str>],
        labels: &[L],
    ) -> Result<Vec<&'static str>, RowErrors> {
        if let Some(empty) = labels.iter().find(|label| label.as_ref().is_empty()) {
            self.require(diagnostics::EMPTY_LABEL, "label", empty.as_ref());
        }
        let has_nul = |value: &str| value.contains('\0');
        if texts.iter().flatten().any(|text| has_nul(text)) || labels.iter().any(|label| has_nul(label.as_ref())) {
            let message =
                "the row holds a NUL character (U+0000): take it out, or save the file as UTF-8 if it is UTF-16";
            self.push(Diagnostic::new(diagnostics::NUL_CHARACTER, message));
        }
        if labels.iter().any(|label| label.as_ref().chars().nth(MAX_LABEL_CHARACTERS).is_some()) {
            let message = format!(
                "the label is longer than {MAX_LABEL_CHARACTERS} characters: is `label` read from the right column?"
            );
            self.push(Diagnostic::new(diagnostics::LABEL_TOO_LONG, message));
        }
        if self.errors.is_empty() { Ok(self.trimmed_fields) } else { Err(self.errors.into_iter().collect()) }
    }

    fn require(&mut self, code: &'static str, name: &str, value: &str) {
        if value.is_empty() {
            let message = format!("the {name} is empty: fill it in, or leave the row out");
            self.push(Diagnostic::new(code, message));
        }
    }
}

/// Removes surrounding white space.
fn trim_value(value: Cow<'_, str>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.trim()),
        Cow::Owned(value) if value.trim().len() == value.len() => Cow::Owned(value),
        Cow::Owned(value) => Cow::Owned(value.trim().to_string()),
    }
}

struct Number {
    schema: RowSchema,
    to_target: fn(f64) -> Target,
}

static VALUE: Number = Number { schema: RowSchema::Value, to_target: Target::Value };
static SCORE: Number = Number { schema: RowSchema::Score, to_target: Target::Score };

impl RowFormat for Number {
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        let number = parse_number(self.schema.target_field(), &cells.target)?;
        self.check(cells.text, cells.second_text, number)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let fields = object.fields(mapping)?;
        let number = number_value(fields.target, self.schema.target_field());
        let (text, number) = RowErrors::both(string_value(fields.text, "text"), number)?;
        self.check(text, fields.second_text, number)
    }

    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        (stats.target_count < 2).then(|| {
            let field = self.schema.target_field();
            let message = format!("every usable row has the same {field}: there is nothing to learn from them");
            Diagnostic::new(diagnostics::TOO_FEW_VALUES, message)
        })
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

impl Number {
    fn check(&self, text: Cow<'_, str>, second_text: Option<Cow<'_, str>>, number: f64) -> Result<ValidRow, RowErrors> {
        let mut checks = FieldChecks::default();
        let text = checks.trim("the text", text);
        let text_pair = checks.trim_optional("the text pair", second_text);
        checks.require_text("text", &text);
        if matches!(self.schema.second_text(), SecondText::Required(_)) {
            checks.require_text("text pair", text_pair.as_deref().unwrap_or_default());
        }
        let inputs = [Some(text.as_ref()), text_pair.as_deref()];
        let trimmed_fields = checks.finish::<&str>(&inputs, &[])?;
        Ok(ValidRow {
            duplicate_key: DuplicateKey::with_target(&inputs, number.to_string()),
            text: text.into_owned(),
            text_pair: text_pair.map(Cow::into_owned),
            target: (self.to_target)(number),
            trimmed_fields,
            warning: None,
        })
    }
}
