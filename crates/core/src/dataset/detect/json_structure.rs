//! Structure of a JSON document: objects on lines, an array, an array in an object, or a form that holds no rows.

use super::bytes::Bytes;
use super::json_conversions::{array_of_values, lists_of_messages, no_rows, python_literals, several_splits};
use super::line_formats::{has_lists_on_lines, has_messages_on_lines, has_objects_on_lines};
use super::text_start;
use crate::dataset::content::{Content, SAMPLE_BYTES};
use crate::dataset::diagnostics::Diagnostic;
use crate::dataset::format::Format;
use crate::dataset::line_source::{LineSource, Position};
use std::io;

/// Members of an object that are looked at.
const MAX_MEMBERS: usize = 64;

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

/// First characters of a list of spaCy's pairs, after its bracket: each text is one.
const PAIR_HEAD: [u8; 4] = *b"[\",{";

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

/// First value of a document.
#[derive(Debug, PartialEq, Eq)]
enum FirstValue {
    /// An array, and the first byte of its first element.
    Array(Option<u8>),
    /// An array of spaCy's pairs of a text and an object, which begins here.
    Pairs(Position),
    Object {
        members: Vec<Member>,
        lines: Lines,
        followed_by: Rest,
    },
    /// The file ends in the object.
    Unclosed,
    /// An object or a list of objects that begins with `{'`.
    Python,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    One,
    Several,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// The next value begins on the line on which the object ends.
    SameLine,
    MoreValues,
}

#[derive(Debug, PartialEq, Eq)]
struct Member {
    name: String,
    start: Position,
    kind: MemberKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum MemberKind {
    Scalar,
    ListOfObjects,
    ListOfLists,
    /// List of spaCy's pairs of a text and an object.
    ListOfPairs,
    List,
    /// An object and its first name.
    Object(String),
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

impl FirstValue {
    fn scan(source: LineSource) -> io::Result<Self> {
        let mut bytes = Bytes::new(source);
        match bytes.next_visible()? {
            Some(b'[') => {
                let start = bytes.position();
                Ok(match bytes.next_visible()? {
                    Some(b'{') if bytes.next_visible()? == Some(b'\'') => Self::Python,
                    Some(b'[') if begins_pair(&mut bytes)? => Self::Pairs(start),
                    first => Self::Array(first.filter(|byte| *byte != b']')),
                })
            }
            Some(_) => Self::scan_object(bytes),
            None => Ok(Self::Unclosed),
        }
    }

    /// Scans an object after its opening brace.
    fn scan_object(mut bytes: Bytes) -> io::Result<Self> {
        let first_line = bytes.position().line;
        let mut members: Vec<Member> = Vec::new();
        loop {
            let name = match bytes.next_visible()? {
                Some(b'}') => break,
                Some(b'\'') if members.is_empty() => return Ok(Self::Python),
                Some(b',') => continue,
                Some(b'"') => bytes.read_string()?,
                _ => None,
            };
            let (Some(name), Some(b':')) = (name, bytes.next_visible()?) else { return Ok(Self::Unclosed) };
            let Some((start, kind, is_last)) = scan_value(&mut bytes)? else { return Ok(Self::Unclosed) };
            if members.len() < MAX_MEMBERS {
                members.push(Member { name, start, kind });
            }
            if is_last {
                break;
            }
        }
        let last_line = bytes.position().line;
        let lines = if last_line == first_line { Lines::One } else { Lines::Several };
        let mut next = bytes.next_visible()?;
        while next == Some(b',') {
            next = bytes.next_visible()?;
        }
        let followed_by = match next {
            None => Rest::Nothing,
            Some(b'{') if bytes.position().line == last_line => Rest::SameLine,
            Some(_) => Rest::MoreValues,
        };
        Ok(Self::Object { members, lines, followed_by })
    }
}

/// Whether a text and the start of an object follow, as after the bracket of spaCy's pairs.
fn begins_pair(bytes: &mut Bytes) -> io::Result<bool> {
    let has_text = bytes.next_visible()? == Some(b'"') && bytes.read_string()?.is_some();
    Ok(has_text && bytes.next_visible()? == Some(b',') && bytes.next_visible()? == Some(b'{'))
}

/// Scans the value of a member. The flag says that the brace that closes the object follows a number, `true`, `false` or `null`, and is
/// read. `None` at the end of the file.
fn scan_value(bytes: &mut Bytes) -> io::Result<Option<(Position, MemberKind, bool)>> {
    let first = bytes.next_visible()?;
    let start = bytes.position();
    let kind = match first {
        None => return Ok(None),
        Some(b'"') => return Ok(bytes.read_string()?.map(|_| (start, MemberKind::Scalar, false))),
        Some(b'{' | b'[') => first,
        Some(_) => loop {
            match bytes.next()? {
                None => return Ok(None),
                Some(b',') => return Ok(Some((start, MemberKind::Scalar, false))),
                Some(b'}') => return Ok(Some((start, MemberKind::Scalar, true))),
                Some(_) => {}
            }
        },
    };
    let is_object = kind == Some(b'{');
    let mut kind = if is_object { MemberKind::Object(String::new()) } else { MemberKind::List };
    let (mut depth, mut is_first) = (1_u64, true);
    let mut head = Vec::new();
    while depth > 0 {
        let byte = bytes.next_visible()?;
        head.extend(byte.filter(|_| head.len() < PAIR_HEAD.len()));
        match byte {
            None => return Ok(None),
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => depth -= 1,
            Some(b'"') => {
                let Some(text) = bytes.read_string()? else { return Ok(None) };
                if is_first && is_object {
                    kind = MemberKind::Object(text);
                }
            }
            Some(_) => {}
        }
        if is_first && !is_object {
            kind = match byte {
                Some(b'{') => MemberKind::ListOfObjects,
                Some(b'[') => MemberKind::ListOfLists,
                _ => MemberKind::List,
            };
        }
        is_first = false;
    }
    if !is_object && head == PAIR_HEAD {
        kind = MemberKind::ListOfPairs;
    }
    Ok(Some((start, kind, false)))
}

#[cfg(test)]
mod tests;
