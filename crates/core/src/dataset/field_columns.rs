//! Columns of a row schema's fields: as the request maps them, else by the field's own name, else by a usual name.

use super::column_names::{PROMPT_INPUTS, TEXT_PAIRS, is_usual_name, well_known_names};
use super::options::Options;
use super::preview::{ColumnSample, Preview};
use super::value_kind::Kind;
use crate::task::RowSchema;
use crate::task::row_schema::SecondText;

/// Where a column was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// The request maps the field to it. `None` if the file does not have it.
    Mapped(Option<&'a ColumnSample>),
    OwnName(&'a ColumnSample),
    WellKnown(&'a ColumnSample),
    /// Several columns have a usual name.
    Ambiguous(Vec<&'a ColumnSample>),
    /// Columns of zeros and ones, which the request's `label_names` name.
    Indicators,
    Missing,
}

/// Columns of the fields of a schema.
#[derive(Debug)]
pub(super) struct FieldColumns<'a> {
    pub schema: RowSchema,
    pub text: Source<'a>,
    /// `None` if the schema has no second text.
    pub second_text: Option<Source<'a>>,
    pub target: Source<'a>,
}

impl<'a> Source<'a> {
    pub fn column(&self) -> Option<&'a ColumnSample> {
        match self {
            Self::Mapped(column) => *column,
            Self::OwnName(column) | Self::WellKnown(column) => Some(column),
            Self::Ambiguous(_) | Self::Indicators | Self::Missing => None,
        }
    }

    /// Whether something was found, if only too much.
    pub fn is_found(&self) -> bool {
        matches!(self, Self::Indicators | Self::Ambiguous(_)) || self.column().is_some()
    }

    fn is_missing(&self) -> bool {
        *self == Self::Missing
    }
}

impl<'a> FieldColumns<'a> {
    pub fn find(schema: RowSchema, options: &Options, preview: &'a Preview) -> Self {
        let has_indicators = schema == RowSchema::Labels
            && !options.columns.contains_key("labels")
            && has_indicator_columns(&options.label_names, preview);
        let named = |field: &str| named_column(field, options, preview);
        let (text_field, target_field) = (schema.text_field(), schema.target_field());
        let second_field = second_field(schema);
        let mut columns = Self {
            schema,
            text: named(text_field),
            second_text: second_field.map(named),
            target: if has_indicators { Source::Indicators } else { named(target_field) },
        };
        columns.find_pair(preview);
        if columns.text.is_missing() {
            columns.text = columns.well_known(text_field, preview);
        }
        if text_field == target_field {
            columns.target = columns.text.clone();
        } else if columns.target.is_missing() {
            columns.target = columns.well_known(target_field, preview);
        }
        if let Some(field) = second_field.filter(|field| *field != "text_pair")
            && columns.second_text == Some(Source::Missing)
        {
            columns.second_text = Some(columns.well_known(field, preview));
        }
        // An optional second text is not read from a column that another field has.
        if let Some(Source::OwnName(second)) = columns.second_text
            && [&columns.text, &columns.target].iter().any(|other| other.column().is_some_and(|other| other == second))
        {
            columns.second_text = Some(Source::Missing);
        }
        columns
    }

    /// How well the schema fits the file: 0 if its target is not there.
    pub fn rank(&self) -> u8 {
        let has_second = match self.schema.second_text() {
            SecondText::Required(_) => self.second_text.as_ref().is_some_and(Source::is_found),
            SecondText::None | SecondText::Optional(_) => true,
        };
        let is_complete = self.text.is_found() && has_second;
        match &self.target {
            Source::Mapped(_) => 7,
            Source::Indicators => 6,
            // Texts alone, where no column beside them makes a prompt with its completion.
            Source::OwnName(_) | Source::WellKnown(_) | Source::Ambiguous(_) if self.schema == RowSchema::Text => 1,
            // A conversation beside a chosen and a rejected answer belongs to them.
            Source::OwnName(_) if is_complete && self.schema == RowSchema::Chosen => 6,
            Source::OwnName(column) if is_complete && is_natural(self.schema, column) => 5,
            // Two texts are rather those of a pair with a label or a score, or a prompt with its completion.
            Source::WellKnown(column)
                if self.schema == RowSchema::Positive && !column.normalized_name.starts_with("pos") =>
            {
                if is_complete {
                    3
                } else {
                    0
                }
            }
            Source::WellKnown(_) | Source::Ambiguous(_) if is_complete => 4,
            Source::OwnName(_) => {
                if is_complete {
                    2
                } else {
                    1
                }
            }
            Source::WellKnown(_) | Source::Ambiguous(_) | Source::Missing => 0,
        }
    }

    /// Takes the two texts of a pair by their usual names, if there is one such pair and neither text is found.
    fn find_pair(&mut self, preview: &'a Preview) {
        let has_pairs = self.schema.fields().contains(&"text_pair");
        if !has_pairs || !self.text.is_missing() || self.second_text != Some(Source::Missing) {
            return;
        }
        let column = |name: &str| {
            self.free_columns(preview)
                .find(|column| is_usual_name(&column.normalized_name, name) && fits("text", column))
        };
        let mut pairs = TEXT_PAIRS.iter().filter_map(|(first, second)| Some((column(first)?, column(second)?)));
        if let (Some((first, second)), None) = (pairs.next(), pairs.next()) {
            self.text = Source::WellKnown(first);
            self.second_text = Some(Source::WellKnown(second));
        }
    }

    /// The one free column with a usual name of the field and fitting values.
    fn well_known(&self, field: &str, preview: &'a Preview) -> Source<'a> {
        let names = well_known_names(self.schema, field);
        let has_instruction = preview.columns.iter().any(|column| column.normalized_name == "instruction");
        let is_candidate = |column: &&ColumnSample| {
            let name = column.normalized_name.as_str();
            let is_input = field == "prompt" && has_instruction && PROMPT_INPUTS.contains(&name);
            names.iter().any(|usual| is_usual_name(name, usual)) && !is_input && fits_by_usual_name(field, column)
        };
        let candidates: Vec<&ColumnSample> = self.free_columns(preview).filter(is_candidate).collect();
        match candidates.as_slice() {
            [] => Source::Missing,
            [column] => Source::WellKnown(column),
            _ => Source::Ambiguous(candidates),
        }
    }

    /// Columns that no field has yet.
    fn free_columns(&self, preview: &'a Preview) -> impl Iterator<Item = &'a ColumnSample> {
        let used: Vec<&str> = [Some(&self.text), self.second_text.as_ref(), Some(&self.target)]
            .into_iter()
            .flatten()
            .filter_map(|source| Some(source.column()?.name.as_str()))
            .collect();
        preview.columns.iter().filter(move |column| !used.contains(&column.name.as_str()))
    }
}

impl PartialEq for ColumnSample {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ColumnSample {}

pub(super) fn second_field(schema: RowSchema) -> Option<&'static str> {
    match schema.second_text() {
        SecondText::None => None,
        SecondText::Optional(field) | SecondText::Required(field) => Some(field),
    }
}

/// Whether the names are those of columns with zeros and ones.
pub(super) fn has_indicator_columns(names: &[String], preview: &Preview) -> bool {
    let is_indicator = |name: &String| preview.column(name).is_some_and(ColumnSample::has_only_flags);
    !names.is_empty() && names.iter().all(is_indicator)
}

fn named_column<'a>(field: &str, options: &Options, preview: &'a Preview) -> Source<'a> {
    match options.columns.get(field) {
        Some(name) => Source::Mapped(preview.column(name)),
        None => preview.column(field).map_or(Source::Missing, Source::OwnName),
    }
}

/// Whether values of this kind can be those of the field.
fn fits(field: &str, column: &ColumnSample) -> bool {
    match (field, column.kind) {
        (_, Kind::Empty) => true,
        ("prompt" | "completion" | "chosen" | "rejected", kind) => kind.is_scalar() || kind == Kind::Messages,
        ("positive" | "negative", kind) => kind == Kind::Text || kind == Kind::TextList,
        ("messages", kind) => kind == Kind::Messages,
        ("entities", kind) => kind == Kind::Spans,
        ("tokens", kind) => kind == Kind::TextList || kind == Kind::Text,
        ("tags", kind) => kind.is_list(),
        ("label", kind) => kind.is_scalar() || kind == Kind::Various || has_one_label(column),
        ("labels", kind) => {
            kind.is_list() || matches!(kind, Kind::Text | Kind::Various | Kind::Choices | Kind::Categories)
        }
        ("value" | "score", kind) => kind.is_scalar(),
        (_, kind) => kind == Kind::Text || kind == Kind::Number,
    }
}

/// Whether the column can be taken for a field by one of the field's usual names.
fn fits_by_usual_name(field: &str, column: &ColumnSample) -> bool {
    match (field, column.normalized_name.as_str()) {
        ("label", "labels") => column.kind.is_scalar() && has_one_label(column),
        ("label", "target") => !column.has_fractions() && fits(field, column),
        ("labels", "label") => !column.kind.is_scalar() && fits(field, column),
        ("labels", "target") => column.kind.is_list(),
        ("value", "target") => column.has_fractions(),
        ("value", "score") => column.kind == Kind::Number,
        _ => fits(field, column),
    }
}

/// Whether the field's own name and the values speak for the schema.
fn is_natural(schema: RowSchema, column: &ColumnSample) -> bool {
    match schema {
        RowSchema::Labels => !(column.kind.is_scalar() && has_one_label(column)) && fits("labels", column),
        RowSchema::Tags | RowSchema::Positive => true,
        RowSchema::Value | RowSchema::Score => column.kind.is_scalar() || column.kind == Kind::Empty,
        _ => fits(schema.target_field(), column),
    }
}

/// Whether every value is one label: a scalar without separators of labels, or a list or choice of one.
pub(super) fn has_one_label(column: &ColumnSample) -> bool {
    match column.kind {
        Kind::Number | Kind::Bool => true,
        Kind::Text => !column.labels().iter().any(|label| label.contains([';', '|', ','])),
        Kind::TextList => column.lists().iter().all(|list| list.len() == 1),
        Kind::Choices | Kind::Categories => {
            let choices = |value: super::field_value::FieldValue<'_>| super::choices::read_choices(&value);
            column.values().all(|value| choices(value).is_ok_and(|choices| choices.is_some_and(|list| list.len() == 1)))
        }
        _ => false,
    }
}
