//! Structure of a JSON document: objects on lines, an array, an array in an object, or a form that holds no rows.

use super::json_conversions::{array_of_values, lists_of_messages, no_rows, python_literals, several_splits};
use super::json_scan::{FirstValue, Lines, Member, MemberKind, Rest};
use super::line_formats::{has_lists_on_lines, has_messages_on_lines, has_objects_on_lines};
use super::text_start;
use crate::dataset::content::{Content, SAMPLE_BYTES};
use crate::dataset::diagnostics::Diagnostic;
use crate::dataset::format::Format;
use crate::dataset::line_source::{LineSource, Position};
use std::io;

/// Names under which tools put the array of rows beside other members.
const ROWS_NAMES: [&str; 11] = [
    "data",
    "rows",
    "examples",
    "items",
    "records",
    "instances",
    "samples",
    "entries",
    "documents",
    "dataset",
    "results",
];
/// Names of lists of objects that are a field of one row.
const FIELD_NAMES: [&str; 16] = [
    "messages",
    "conversations",
    "conversation",
    "dialog",
    "dialogue",
    "turns",
    "entities",
    "spans",
    "annotations",
    "tools",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "labels",
    "tokens",
];
const SPLIT_NAMES: [&str; 7] = ["train", "test", "validation", "valid", "val", "dev", "eval"];
/// Names of lists that make one row, although every member of the object is a list.
const TOKEN_NAMES: [&str; 5] = ["tokens", "words", "tags", "ner_tags", "labels"];

/// Where the rows of a JSON document are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dataset) enum RowsPosition {
    /// They are the values of the document, or the elements of its array.
    Document,
    /// They are the elements, which are lists, of the array that begins here.
    Array { start: Position },
    /// They are the elements of the array that begins here.
    Member { name: String, start: Position, other_names: Vec<String> },
}

/// Format of a file that begins with `{` or `[`.
///
/// # Errors
/// A diagnostic with the conversion for a document that holds no list of objects.
pub(super) fn detect_json(content: &Content, named: Option<Format>) -> io::Result<Result<Format, Diagnostic>> {
    let sample = content.sample()?;
    if has_objects_on_lines(text_start(&sample), sample.len() < SAMPLE_BYTES) {
        return Ok(Ok(Format::Jsonl));
    }
    Ok(match FirstValue::scan(content.lines()?)? {
        FirstValue::Python => Err(python_literals()),
        FirstValue::Array(Some(b'{')) if has_messages_on_lines(text_start(&sample)) => Err(lists_of_messages()),
        FirstValue::Array(None | Some(b'{')) => Ok(Format::Json),
        FirstValue::Pairs(_) => Ok(Format::Json),
        FirstValue::Array(Some(first)) => Err(array_of_values(first, has_lists_on_lines(text_start(&sample)))),
        FirstValue::Unclosed if named == Some(Format::Json) => Ok(Format::Json),
        FirstValue::Unclosed => Ok(Format::Jsonl),
        FirstValue::Object { followed_by: Rest::SameLine, .. } => Ok(Format::Json),
        FirstValue::Object { lines: Lines::One, followed_by: Rest::MoreValues, .. } => Ok(Format::Jsonl),
        FirstValue::Object { lines: Lines::Several, followed_by: Rest::MoreValues, .. } => Ok(Format::Json),
        FirstValue::Object { members, lines, followed_by: Rest::Nothing } => match rows_member(&members) {
            Ok(None) if lines == Lines::One => Ok(Format::Jsonl),
            Ok(_) => Ok(Format::Json),
            Err(diagnostic) => Err(diagnostic),
        },
    })
}

/// Finds the rows of a document of the format `json`.
pub(in crate::dataset) fn find_rows(source: LineSource) -> io::Result<RowsPosition> {
    let mut members = match FirstValue::scan(source)? {
        FirstValue::Object { members, followed_by: Rest::Nothing, .. } => members,
        FirstValue::Pairs(start) => return Ok(RowsPosition::Array { start }),
        _ => return Ok(RowsPosition::Document),
    };
    let Ok(Some(index)) = rows_member(&members) else { return Ok(RowsPosition::Document) };
    let rows = members.remove(index);
    let other_names = members.into_iter().map(|member| member.name).collect();
    Ok(RowsPosition::Member { name: rows.name, start: rows.start, other_names })
}

/// Index of the member with the rows; `None` if the object is a row itself.
fn rows_member(members: &[Member]) -> Result<Option<usize>, Diagnostic> {
    let names = |kind: MemberKind| {
        members.iter().filter(|member| member.kind == kind).map(|member| member.name.as_str()).collect::<Vec<_>>()
    };
    let lists = names(MemberKind::ListOfObjects);
    let index_of = |name: &str| members.iter().position(|member| member.name == name);
    let is_one_of = |set: &[&str], name: &str| set.contains(&name.to_ascii_lowercase().as_str());
    let splits: Vec<&str> = lists.iter().copied().filter(|name| is_one_of(&SPLIT_NAMES, name)).collect();
    match (splits.as_slice(), lists.as_slice()) {
        ([first, _, ..], _) => return Err(several_splits(&splits, first)),
        (_, [only]) if members.len() == 1 && !is_one_of(&FIELD_NAMES, only) => return Ok(Some(0)),
        _ => {}
    }
    if let Some(rows) = lists.iter().find(|name| is_one_of(&ROWS_NAMES, name)) {
        return Ok(index_of(rows));
    }
    if let [pairs] = names(MemberKind::ListOfPairs).as_slice() {
        return Ok(index_of(pairs));
    }
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let is_numbered = |member: &Member| matches!(&member.kind, MemberKind::Object(first) if is_number(first));
    let pandas = |orient: &str| {
        format!(
            "`python -c \"import pandas; pandas.read_json('rows.json'{orient}).to_json('rows.jsonl', orient='records', lines=True)\"`"
        )
    };
    if index_of("columns").is_some() && names(MemberKind::ListOfLists).contains(&"data") {
        return Err(no_rows("a table with its columns and its data apart", &pandas(", orient='split'")));
    }
    let is_column = |member: &Member| member.kind == MemberKind::List && !is_one_of(&TOKEN_NAMES, &member.name);
    if !members.is_empty() && (members.iter().all(is_numbered) || (members.len() > 1 && members.iter().all(is_column)))
    {
        return Err(no_rows("an object with a list of values for each column", &pandas("")));
    }
    let is_row = |member: &Member| matches!(member.kind, MemberKind::Object(_)) && is_number(&member.name);
    if members.len() > 1 && members.iter().all(is_row) {
        return Err(no_rows("an object with a member for each row", &pandas(", orient='index'")));
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
