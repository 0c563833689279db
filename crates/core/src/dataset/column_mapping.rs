//! Mapping of a row schema's fields to the columns (or JSON fields) of a file, and how their values are written.

use super::column_names::{PROMPT_INPUTS, normalized};
use super::column_proposal::missing_column;
use super::diagnostics::{self, Diagnostic, quote, quote_list};
use super::field_columns::{FieldColumns, Source, second_field};
use super::field_value::FieldValue;
use super::label_notation::LabelNotation;
use super::number_format::NumberFormat;
use super::options::Options;
use super::preview::{ColumnSample, Preview};
use super::row_filters::RowFilters;
use super::value_kind::Kind;
use crate::task::RowSchema;
use crate::task::row_schema::SecondText;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

/// Columns of a row schema's fields, and the notation of their values.
#[derive(Debug)]
pub(super) struct ColumnMapping {
    pub schema: RowSchema,
    pub text_column: String,
    pub second_text: Option<SecondTextColumn>,
    pub target_column: String,
    /// Column that continues the prompt, such as Alpaca's `input`.
    pub prompt_input: Option<String>,
    /// Column of the system message.
    pub system: Option<String>,
    /// Column of the tools of a conversation.
    pub tools: Option<String>,
    /// Whether `text` and `label` are in one column: a conversation whose last message is the label.
    pub has_labelled_messages: bool,
    pub labels: LabelNotation,
    pub numbers: NumberFormat,
    pub filters: RowFilters,
    /// What was not obvious, in sentences.
    pub notes: Vec<String>,
    pub unread_columns: Vec<String>,
}

/// Column of a row's second text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SecondTextColumn {
    pub field: &'static str,
    pub column: String,
    /// Whether a row without the field is an error: the schema needs it, or the request maps it.
    pub is_required: bool,
}

impl ColumnMapping {
    /// # Errors
    /// `invalid_columns` if the options map a field that the schema does not have, or two fields to one column; `missing_column` or
    /// `missing_field` with a proposal; the errors of notations and columns that are not supported.
    pub fn resolve(schema: RowSchema, options: &Options, preview: &Preview) -> Result<Self, Diagnostic> {
        check_fields(&options.columns, schema)?;
        let mut columns = FieldColumns::find(schema, options, preview);
        let mapped_name = |field: &str| options.columns.get(field).map(|name| name.trim().to_string());
        let mut notes = Vec::new();
        let labelled_messages = labelled_messages(&columns, preview);
        if let Some(column) = labelled_messages {
            (columns.text, columns.target) = (Source::OwnName(column), Source::OwnName(column));
            notes.push(format!(
                "`label` is the last message in {}, and `text` the messages before it without those of the system",
                column.quoted()
            ));
        } else {
            check_distinct(&columns, &mapped_name)?;
            let missing = missing_column(&columns, preview, &mapped_name);
            if let Some(diagnostic) = missing.filter(|_| !preview.columns.is_empty()) {
                return Err(diagnostic);
            }
        }
        let column_for = |field: &str, source: &Source<'_>| {
            let found = source.column().map(|column| column.name.clone());
            found.or_else(|| mapped_name(field)).unwrap_or_else(|| field.to_string())
        };
        let labels = LabelNotation::detect(schema, options, &columns.target, &mut notes)?;
        let second_text =
            second_field(schema).zip(columns.second_text.as_ref()).map(|(field, source)| SecondTextColumn {
                field,
                column: column_for(field, source),
                is_required: matches!(schema.second_text(), SecondText::Required(_))
                    || options.columns.contains_key(field),
            });
        let mut mapping = Self {
            schema,
            text_column: column_for(schema.text_field(), &columns.text),
            second_text: second_text
                .filter(|second| second.is_required || columns.second_text.as_ref().is_some_and(Source::is_found)),
            target_column: column_for(schema.target_field(), &columns.target),
            prompt_input: None,
            system: None,
            tools: None,
            has_labelled_messages: labelled_messages.is_some(),
            labels,
            numbers: number_format(schema, options, &columns.target)?,
            filters: RowFilters::default(),
            notes,
            unread_columns: Vec::new(),
        };
        mapping.note_usual_names(&columns);
        mapping.note_annotations(&columns, preview);
        mapping.find_prompt_columns(preview)?;
        let used = mapping.field_columns().map(str::to_string).collect::<Vec<_>>();
        let used: Vec<&str> = used.iter().map(String::as_str).collect();
        let target = columns.target.column();
        mapping.filters = RowFilters::detect(preview, schema, options.split, &used, target, &mut mapping.notes)?;
        mapping.unread_columns = mapping.unread(preview);
        Ok(mapping)
    }

    /// Columns that rows are read from.
    pub fn read_columns(&self) -> impl Iterator<Item = &str> {
        self.field_columns().chain(self.filters.columns())
    }

    /// Columns of the fields, and those that belong to them.
    fn field_columns(&self) -> impl Iterator<Item = &str> {
        let second = self.second_text.iter().map(|second| &second.column);
        let fields = [&self.text_column, &self.target_column].into_iter().chain(second);
        let others = [&self.prompt_input, &self.system, &self.tools].into_iter().flatten();
        fields.chain(others).chain(&self.labels.indicator_columns).map(String::as_str)
    }

    fn unread(&self, preview: &Preview) -> Vec<String> {
        let read: HashSet<&str> = self.read_columns().collect();
        let unread = preview.column_names().zip(1..).filter(|(name, _)| !read.contains(name));
        let name = |(name, number): (&str, usize)| match name.trim() {
            "" => format!("column {number}, which has no name"),
            _ => name.to_string(),
        };
        unread.map(name).collect()
    }

    fn note_usual_names(&mut self, columns: &FieldColumns<'_>) {
        let second = second_field(self.schema).zip(columns.second_text.as_ref());
        let text = (self.schema.text_field(), &columns.text);
        let target = (self.schema.target_field(), &columns.target);
        let mut fields: Vec<(&str, &Source<'_>)> = [Some(text), second, Some(target)].into_iter().flatten().collect();
        fields.dedup_by_key(|(field, _)| *field);
        if self.has_labelled_messages {
            fields.truncate(1);
        }
        for (field, source) in fields {
            if let Source::WellKnown(column) = source {
                self.notes.push(format!("`{field}` is read from {}", column.quoted()));
            }
            if let Some(column) = source.column().filter(|column| has_sharegpt_messages(column)) {
                self.notes.push(format!(
                    "`from` and `value` in {} are read as `role` and `content`, \"human\" as user and \"gpt\" as assistant",
                    column.quoted()
                ));
            }
        }
    }

    /// Notes what of the annotations of a tool is not read.
    fn note_annotations(&mut self, columns: &FieldColumns<'_>, preview: &Preview) {
        if preview.has_several_annotations {
            let note = "of tasks with several annotations, the first one that is not cancelled is read";
            self.notes.push(note.to_string());
        }
        let has_relation = |value: FieldValue<'_>| value.source().contains("\"from_id\"");
        let target = columns.target.column().filter(|column| column.kind == Kind::Spans);
        if let Some(column) = target.filter(|column| column.values().any(has_relation)) {
            self.notes.push(format!("relations between the entities in {} are not read", column.quoted()));
        }
    }

    /// Finds the columns that belong to a prompt or a conversation: its system message, its input, its tools.
    fn find_prompt_columns(&mut self, preview: &Preview) -> Result<(), Diagnostic> {
        let is_generative = matches!(self.schema, RowSchema::Completion | RowSchema::Chosen | RowSchema::Messages);
        if !is_generative {
            return Ok(());
        }
        let used: Vec<String> = self.field_columns().map(str::to_string).collect();
        let find = |names: &[&str]| {
            let free = preview.columns.iter().filter(|column| !used.contains(&column.name));
            free.clone().find(|column| names.contains(&column.normalized_name.as_str()) && column.kind != Kind::Empty)
        };
        for unsupported in ["history", "image", "images", "video", "videos", "audio", "audios"] {
            if let Some(column) = find(&[unsupported]).filter(|column| column.kind != Kind::EmptyList) {
                return Err(unsupported_column(column));
            }
        }
        let has_instruction = self.schema != RowSchema::Messages
            && matches!(normalized(&self.text_column).as_str(), "instruction" | "question");
        if let Some(column) = find(&PROMPT_INPUTS).filter(|column| has_instruction && column.kind.is_scalar()) {
            self.notes.push(format!("{} follows the prompt of its row, after a blank line", column.quoted()));
            self.prompt_input = Some(column.name.clone());
        }
        let system = find(&["system", "system_prompt"]);
        if let Some(column) = system.filter(|column| !column.kind.is_scalar() && column.kind != Kind::EmptyList) {
            return Err(unsupported_column(column));
        }
        if let Some(column) = system.filter(|column| column.kind.is_scalar()) {
            self.notes.push(format!(
                "{} is the system message: the rows are read as conversations, by the base's chat template",
                column.quoted()
            ));
            self.system = Some(column.name.clone());
        }
        self.tools = find(&["tools", "functions"]).map(|column| column.name.clone());
        Ok(())
    }
}

/// Column of conversations in a file without `text` and `label`, for a task that learns one label.
fn labelled_messages<'a>(columns: &FieldColumns<'_>, preview: &'a Preview) -> Option<&'a ColumnSample> {
    let is_without_fields = [&columns.text, &columns.target].iter().all(|source| **source == Source::Missing);
    let mut conversations = preview.columns.iter().filter(|column| column.kind == Kind::Messages);
    conversations
        .next()
        .filter(|_| columns.schema == RowSchema::Label && is_without_fields && conversations.next().is_none())
}

/// Whether the messages have ShareGPT's `from` and `value`.
fn has_sharegpt_messages(column: &ColumnSample) -> bool {
    let has_from = |value: FieldValue<'_>| value.as_structure().is_some_and(|list| list.get().contains("\"from\""));
    column.kind == Kind::Messages && column.values().any(has_from)
}

fn check_fields(columns: &BTreeMap<String, String>, schema: RowSchema) -> Result<(), Diagnostic> {
    let fields = schema.fields();
    match columns.keys().find(|field| !fields.contains(&field.as_str())) {
        None => Ok(()),
        Some(unknown_field) => {
            let message = format!(
                "`columns` maps {}, which this task does not read: it reads {}",
                quote(unknown_field),
                quote_list(fields.into_iter())
            );
            Err(Diagnostic::new(diagnostics::INVALID_COLUMNS, message))
        }
    }
}

/// Checks that no two fields are read from one column.
fn check_distinct(columns: &FieldColumns<'_>, mapped_name: &dyn Fn(&str) -> Option<String>) -> Result<(), Diagnostic> {
    let schema = columns.schema;
    let name = |field: &'static str, source: &Source<'_>| {
        let found = source.column().map(|column| column.name.clone());
        Some((field, found.or_else(|| mapped_name(field))?))
    };
    let text = name(schema.text_field(), &columns.text);
    let second = second_field(schema).zip(columns.second_text.as_ref()).and_then(|(field, source)| name(field, source));
    let target = name(schema.target_field(), &columns.target).filter(|_| schema.text_field() != schema.target_field());
    let named: Vec<(&str, String)> = [text, second, target].into_iter().flatten().collect();
    let conflict = named.iter().enumerate().find_map(|(index, (field, column))| {
        let (earlier, _) = named[..index].iter().find(|(_, other)| other == column)?;
        Some((*earlier, *field, column))
    });
    match conflict {
        None => Ok(()),
        Some((first, second, column)) => {
            let message = format!(
                "`{first}` and `{second}` would both be read from {}: give each its own column in `columns`",
                quote(column)
            );
            Err(Diagnostic::new(diagnostics::INVALID_COLUMNS, message))
        }
    }
}

/// Format of the numbers of a schema whose target is a number.
fn number_format(schema: RowSchema, options: &Options, target: &Source<'_>) -> Result<NumberFormat, Diagnostic> {
    if !matches!(schema, RowSchema::Value | RowSchema::Score) {
        return Ok(NumberFormat::default());
    }
    let Some(column) = target.column() else { return Ok(NumberFormat::default()) };
    // Number literals of JSON have one meaning.
    let texts: Vec<String> = column
        .values()
        .filter(|value| value.type_name() != "a number")
        .filter_map(|value| value.as_text("").ok().map(Cow::into_owned))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    NumberFormat::detect(schema.target_field(), &column.name, &texts, options.decimal)
}

fn unsupported_column(column: &ColumnSample) -> Diagnostic {
    let advice = match column.normalized_name.as_str() {
        "system" | "system_prompt" => "its values have to be texts: write each system message as one",
        "history" => "earlier turns are read from `messages`: write each row as a list of messages",
        _ => "only text is read: leave the column out, and the rows that need it",
    };
    Diagnostic::new(
        diagnostics::UNSUPPORTED_COLUMN,
        format!("the column {} is not supported: {advice}", column.quoted()),
    )
}
