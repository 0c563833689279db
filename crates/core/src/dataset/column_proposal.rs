//! Errors about missing or ambiguous columns, with the mapping that the file suggests.

use super::column_names::mapping_hint;
use super::diagnostics::{self, Diagnostic, quote, quote_list};
use super::field_columns::{FieldColumns, Source, second_field};
use super::preview::{ColumnSample, Preview};
use super::record::ANNOTATION_RESULT;
use super::value_kind::Kind;
use crate::task::RowSchema;
use crate::task::row_schema::SecondText;
use std::collections::BTreeSet;

/// Number of mappings that a message proposes.
const MAX_PROPOSALS: usize = 4;

/// Error for the first required field without a column. `None` if all have one.
pub(super) fn missing_column(
    columns: &FieldColumns<'_>,
    preview: &Preview,
    mapped_name: &dyn Fn(&str) -> Option<String>,
) -> Option<Diagnostic> {
    let schema = columns.schema;
    let second = match schema.second_text() {
        SecondText::Required(field) => columns.second_text.as_ref().map(|source| (field, source)),
        SecondText::Optional(field) => columns
            .second_text
            .as_ref()
            .filter(|source| matches!(source, Source::Mapped(None)))
            .map(|source| (field, source)),
        SecondText::None => None,
    };
    // A preference between whole conversations needs no prompt.
    let needs_text =
        schema != RowSchema::Chosen || columns.target.column().is_none_or(|column| column.kind != Kind::Messages);
    let text = needs_text.then_some((schema.text_field(), &columns.text));
    let fields = [text, second, Some((schema.target_field(), &columns.target))];
    let (field, source) = fields
        .into_iter()
        .flatten()
        .find(|(_, source)| matches!(source, Source::Ambiguous(_) | Source::Missing | Source::Mapped(None)))?;
    if let Source::Ambiguous(candidates) = source {
        return Some(ambiguous(field, candidates));
    }
    if has_row_per_word(preview) {
        let message = "the file seems to have a row for each word: send it as CoNLL (a word and its tag on a line, a blank line between \
                       sentences), or write a row for each sentence, with its words in `tokens` and their tags in `tags`";
        return Some(Diagnostic::new(diagnostics::MISSING_COLUMN, message));
    }
    if preview.has_unannotated && preview.column(ANNOTATION_RESULT).is_none() {
        let message =
            "none of the first tasks has an annotation that is not cancelled: annotate them, and export them again";
        return Some(Diagnostic::new(diagnostics::MISSING_COLUMN, message));
    }
    if has_unread_annotations(preview) {
        let message = "the annotations in \"result\" answer several questions, or are of a type that is not read: export them as JSON-MIN, \
                       where each question is a field of its own, and name it as in `\"columns\": {\"label\": \"…\"}`";
        return Some(Diagnostic::new(diagnostics::MISSING_COLUMN, message));
    }
    let name = mapped_name(field).unwrap_or_else(|| field.to_string());
    let (place, code) = match preview.is_table {
        true => ("the header has no column", diagnostics::MISSING_COLUMN),
        false => ("no object has a field", diagnostics::MISSING_FIELD),
    };
    let listed = if preview.is_table { "its columns" } else { "their fields" };
    let mut message = format!("{place} {}; {listed} are {}. ", quote(&name), quote_list(preview.column_names()));
    if preview.is_table && begins_with_a_row(preview) {
        message.push_str("The first line seems to be a row: put a line with the names of the columns before it");
        return Some(Diagnostic::new(code, message));
    }
    let proposals = proposals(columns, preview);
    match proposals.as_slice() {
        [] => message.push_str(&general_advice(field, columns, preview)),
        [proposal] => message.push_str(&format!("Likely is {proposal}")),
        several => message.push_str(&format!("Likely is one of {}", several.join(", "))),
    }
    if preview.is_table {
        message.push_str(&header_hint(preview));
    }
    Some(Diagnostic::new(code, message))
}

/// Advice for a file whose values suggest no mapping.
fn general_advice(field: &str, columns: &FieldColumns<'_>, preview: &Preview) -> String {
    if columns.schema == RowSchema::Chosen && field == "prompt" {
        return "Write the start that the chosen and the rejected text share as `prompt`, or write both as lists of messages".to_string();
    }
    let hint = mapping_hint(field);
    if field == "label" && preview.column_names().eq(["id", "text"]) {
        return format!(
            "{hint}. A FASTA file has the labels in its headers, as in `>id|label`; with labels in a second file, write both into a table \
             with the columns `text` and `label`"
        );
    }
    match columns.schema == RowSchema::Label && columns.text.column().is_some() {
        true => format!(
            "{hint}. Texts alone are for a language model: `\"task\": {{\"type\": \"causal_language_model\"}}` or \
             `\"task\": {{\"type\": \"masked_language_model\"}}`"
        ),
        false => hint,
    }
}

/// Whether the annotations of Label Studio are of a kind that is not read.
fn has_unread_annotations(preview: &Preview) -> bool {
    let result = preview.columns.iter().find(|column| column.name == ANNOTATION_RESULT);
    !preview.is_table && result.is_some_and(|column| matches!(column.kind, Kind::Other | Kind::Various))
}

fn ambiguous(field: &str, candidates: &[&ColumnSample]) -> Diagnostic {
    let names = quote_list(candidates.iter().map(|column| column.name.as_str()));
    let choices: Vec<String> = candidates.iter().map(|column| mapping(&[(field, column)])).collect();
    let message = format!(
        "the columns {names} may each hold the {}: choose one with {}",
        field.replace('_', " "),
        choices.join(" or ")
    );
    Diagnostic::new(diagnostics::MISSING_COLUMN, message)
}

/// Whether the columns are those of words and their tags, one word in a row.
fn has_row_per_word(preview: &Preview) -> bool {
    let has_column = |names: &[&str]| {
        let is_words =
            |column: &&ColumnSample| names.contains(&column.normalized_name.as_str()) && column.kind.is_scalar();
        preview.columns.iter().any(|column| is_words(&column))
    };
    has_column(&["word", "token", "words", "tokens"])
        && has_column(&["tag", "tags", "ner", "pos", "ner_tag", "ner_tags", "label", "labels"])
}

/// Whether a name of the header is a number, or too long for a name.
fn begins_with_a_row(preview: &Preview) -> bool {
    const MAX_NAME_CHARACTERS: usize = 40;
    let is_content =
        |name: &str| name.chars().count() > MAX_NAME_CHARACTERS || (!name.is_empty() && name.parse::<f64>().is_ok());
    preview.columns.len() > 1 && preview.column_names().any(is_content)
}

/// Advice on a file without a header, or with another separator.
fn header_hint(preview: &Preview) -> String {
    if let [single] = preview.columns.as_slice()
        && let Some(separator) = [';', '\t', '|', ','].into_iter().find(|separator| single.name.contains(*separator))
    {
        return format!(
            "; the columns seem to be separated by '{}', which is not the separator",
            separator.escape_debug()
        );
    }
    "; the first line has to name the columns: remove lines before it, or put one in front".to_string()
}

/// The mappings that the values suggest, each with its task.
fn proposals(columns: &FieldColumns<'_>, preview: &Preview) -> Vec<String> {
    let text = columns.text.column().or_else(|| longest_text(preview, columns.target.column()));
    let mut proposals = Vec::new();
    if columns.schema != RowSchema::Label {
        proposals.extend(schema_proposal(columns, preview, text));
        return proposals;
    }
    let Some(text) = text else {
        let is_words = |column: &&ColumnSample| {
            column.kind == Kind::TextList && ["tokens", "words"].contains(&column.normalized_name.as_str())
        };
        if let Some(words) = preview.columns.iter().find(is_words) {
            let tags = preview.columns.iter().filter(|column| *column != words && column.kind.is_list());
            let proposals = tags.map(|tags| mapping(&[("tokens", words), ("tags", tags)]));
            return proposals.map(|mapping| format!("{mapping} (token classification)")).take(MAX_PROPOSALS).collect();
        }
        let conversations = preview.columns.iter().filter(|column| column.kind == Kind::Messages);
        return conversations.map(|column| mapping(&[("messages", column)])).take(MAX_PROPOSALS).collect();
    };
    let pair = columns.second_text.as_ref().and_then(Source::column);
    let texts: Vec<(&str, &ColumnSample)> =
        [Some(("text", text)), pair.map(|pair| ("text_pair", pair))].into_iter().flatten().collect();
    let with_texts = |field, column| mapping(&[texts.as_slice(), &[(field, column)]].concat());
    if let Some(target) = columns.target.column() {
        return vec![with_texts("label", target)];
    }
    let others: Vec<&ColumnSample> =
        preview.columns.iter().filter(|column| *column != text && Some(*column) != pair && !is_index(column)).collect();
    let flags: Vec<&ColumnSample> = others.iter().copied().filter(|column| column.has_only_flags()).collect();
    if flags.len() > 1 {
        let names = flags.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ");
        let columns = mapping(&texts);
        proposals
            .push(format!("{columns} with `\"label_names\": [{names}]` (each row has the labels whose columns are 1)"));
    }
    for column in others {
        if pair.is_some() && column.kind == Kind::Number {
            proposals.push(format!("{} (embeddings, by the similarity)", with_texts("score", column)));
        }
        proposals.extend(target_fields(column).iter().map(|field| {
            let mapping = match *field {
                "completion" => mapping(&[("prompt", text), (field, column)]),
                _ => with_texts(field, column),
            };
            format!("{mapping} ({})", task_of(field))
        }));
    }
    proposals.truncate(MAX_PROPOSALS);
    proposals
}

/// Mapping of all fields of a schema that is not the default one.
fn schema_proposal(columns: &FieldColumns<'_>, preview: &Preview, text: Option<&ColumnSample>) -> Option<String> {
    let schema = columns.schema;
    let mut pairs: Vec<(&str, &ColumnSample)> = Vec::new();
    if schema.text_field() != schema.target_field() {
        pairs.push((schema.text_field(), text?));
    }
    let second = columns.second_text.as_ref().and_then(Source::column);
    if text.is_some_and(|text| second == Some(text) || columns.target.column() == Some(text)) {
        return None;
    }
    if let (RowSchema::Score, Some(text), None, Some(target)) = (schema, text, second, columns.target.column()) {
        return Some(format!("{} (regression)", mapping(&[("text", text), ("value", target)])));
    }
    if let (Some(field), Some(column)) = (second_field(schema), second) {
        pairs.push((field, column));
    }
    let is_free = |column: &&ColumnSample| !is_index(column) && !pairs.iter().any(|(_, used)| used == column);
    let guess = || {
        let suits = |column: &&ColumnSample| target_fields(column).contains(&schema.target_field());
        preview.columns.iter().filter(is_free).find(suits)
    };
    let target = columns.target.column().or_else(guess)?;
    pairs.push((schema.target_field(), target));
    Some(mapping(&pairs))
}

fn mapping(pairs: &[(&str, &ColumnSample)]) -> String {
    let fields: Vec<String> = pairs.iter().map(|(field, column)| format!("\"{field}\": {}", column.quoted())).collect();
    format!("`\"columns\": {{{}}}`", fields.join(", "))
}

fn longest_text<'a>(preview: &'a Preview, target: Option<&ColumnSample>) -> Option<&'a ColumnSample> {
    let mean_length = |column: &ColumnSample| {
        let bytes: usize = column.values().map(|value| value.source().len()).sum();
        bytes / column.values().len().max(1)
    };
    let texts = preview.columns.iter().filter(|column| column.kind == Kind::Text && Some(*column) != target);
    // The first one of equals.
    texts.rev().filter(|column| !column.name.is_empty()).max_by_key(|column| mean_length(column))
}

/// Whether a column numbers the rows.
fn is_index(column: &ColumnSample) -> bool {
    let name = column.normalized_name.as_str();
    name.is_empty()
        || name.starts_with("unnamed")
        || name.ends_with("_id")
        || matches!(name, "id" | "index" | "idx" | "uuid" | "qid1" | "qid2")
}

/// Names of a column whose texts are rather several labels than one.
const JOINED_LABELS: [&str; 5] = ["genres", "categories", "topics", "tags", "keywords"];

/// Fields of a target that the values of a column suggest.
fn target_fields(column: &ColumnSample) -> &'static [&'static str] {
    let labels = column.labels();
    let distinct = labels.iter().collect::<BTreeSet<_>>().len();
    let repeats = distinct * 2 <= labels.len();
    match column.kind {
        Kind::Spans => &["entities"],
        Kind::Messages => &["messages"],
        Kind::TextList | Kind::NumberList => &["labels"],
        Kind::Number if column.has_fractions() || !repeats => &["value"],
        Kind::Number => &["value", "label"],
        Kind::Bool => &["label"],
        Kind::Text if JOINED_LABELS.contains(&column.normalized_name.as_str()) => &["labels"],
        Kind::Text if repeats => &["label"],
        Kind::Text => &["completion"],
        Kind::Choices | Kind::Categories => &["label", "labels"],
        Kind::Empty | Kind::EmptyList | Kind::Other | Kind::Various => &[],
    }
}

fn task_of(field: &str) -> &'static str {
    match field {
        "label" => "classification",
        "labels" => "classification with several labels",
        "value" => "regression",
        "entities" => "token classification",
        _ => "generation",
    }
}
