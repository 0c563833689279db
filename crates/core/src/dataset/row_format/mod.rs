//! Row formats: everything about a dataset that depends on its row schema.
//!
//! A new row schema needs a variant of `RowSchema`, an implementation of [`RowFormat`] and a line in [`row_format`].
//! This file also holds the checks that several schemas share, and the rows with a number as target (`value`, `score`).

use super::column_mapping::ColumnMapping;
use super::diagnostics::{self, Diagnostic};
use super::field_value::FieldValue;
use super::labels::LabelStats;
use super::record::Record;
use super::row::{RecordParser, UnusableRow, ValidRow};
use crate::dataset::duplicates::DuplicateKey;
use crate::task::row_schema::SecondText;
use crate::task::{RowSchema, Target};
use std::borrow::Cow;
use std::collections::HashMap;

mod conversation;
mod labels;
mod messages;
mod preference;
mod spans;
mod tags;
mod texts;

/// Reading, normalization and checks of the rows of one schema.
pub(super) trait RowFormat: Sync {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow>;

    /// Error of a file with usable rows from which nothing can be learned, or whose labels are not what they should be.
    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic>;

    /// Whether a label with one example gets a warning.
    fn warns_about_single_labels(&self) -> bool;
}

/// Parser of the rows of a file whose columns are known.
pub(super) struct RowParser {
    mapping: ColumnMapping,
    format: &'static dyn RowFormat,
}

impl RowParser {
    pub fn new(mapping: ColumnMapping) -> Self {
        let format = row_format(mapping.schema);
        Self { mapping, format }
    }
}

impl RecordParser for RowParser {
    fn set_header(&mut self, _line: u64, header: &[String]) -> Vec<usize> {
        // Of columns with one name, the first is read.
        let indices: HashMap<&str, usize> =
            header.iter().enumerate().rev().map(|(index, name)| (name.as_str(), index)).collect();
        self.mapping.read_columns().filter_map(|name| indices.get(name).copied()).collect()
    }

    fn parse(&mut self, record: &Record<'_>) -> Result<ValidRow, UnusableRow> {
        self.mapping.filters.check(record)?;
        self.format.read_row(record, &self.mapping)
    }
}

/// Values of the fields of one record.
struct Fields<'r, 'a> {
    text: &'r FieldValue<'a>,
    second_text: Option<&'r FieldValue<'a>>,
    target: &'r FieldValue<'a>,
}

impl<'r, 'a> Fields<'r, 'a> {
    /// # Errors
    /// The errors of all fields that are missing.
    fn of(record: &'r Record<'a>, mapping: &ColumnMapping) -> Result<Self, UnusableRow> {
        let text = record.required(mapping.schema.text_field(), &mapping.text_column);
        let second_text = second_text(record, mapping);
        let target = record.required(mapping.schema.target_field(), &mapping.target_column);
        match (text, second_text, target) {
            (Ok(text), Ok(second_text), Ok(target)) => Ok(Self { text, second_text, target }),
            (text, second_text, target) => {
                let errors = [text.err(), second_text.err(), target.err()];
                Err(UnusableRow::Invalid(errors.into_iter().flatten().collect()))
            }
        }
    }

    fn second_text(&self, field: &str) -> Result<Option<Cow<'r, str>>, Diagnostic> {
        self.second_text.map(|value| value.as_text(field)).transpose()
    }
}

/// Second text of a record; `None` if it is null, or absent where it is optional.
fn second_text<'r, 'a>(
    record: &'r Record<'a>,
    mapping: &ColumnMapping,
) -> Result<Option<&'r FieldValue<'a>>, Diagnostic> {
    match &mapping.second_text {
        Some(second) if second.is_required && !record.contains(&second.column) => {
            Err(record.missing_field(second.field, &second.column))
        }
        Some(second) => Ok(record.get(&second.column)),
        None => Ok(None),
    }
}

/// Statistics of a file with at least one usable row.
pub(super) struct FileStats<'a> {
    pub example_count: usize,
    pub labels: &'a [LabelStats],
    pub target_count: usize,
    pub max_labels: usize,
    /// Whether the request says which column holds the label.
    pub is_label_mapped: bool,
    /// Whether the request names the character between the labels.
    pub has_label_separator: bool,
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
    ) -> Result<Vec<&'static str>, UnusableRow> {
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
        if self.errors.is_empty() { Ok(self.trimmed_fields) } else { Err(UnusableRow::Invalid(self.errors)) }
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
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        let fields = Fields::of(record, mapping)?;
        let second_text = fields.second_text("text_pair")?;
        let number = mapping.numbers.read(self.schema.target_field(), fields.target);
        let (text, number) = UnusableRow::both(fields.text.as_text("text"), number)?;
        self.check(text, second_text, number)
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
    fn check(
        &self,
        text: Cow<'_, str>,
        second_text: Option<Cow<'_, str>>,
        number: f64,
    ) -> Result<ValidRow, UnusableRow> {
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
