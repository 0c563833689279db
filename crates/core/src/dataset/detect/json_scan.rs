//! First value of a JSON document: its form, and the members of an object, without parsing them.

use super::bytes::Bytes;
use crate::dataset::line_source::{LineSource, Position};
use std::io;

/// Members of an object that are looked at.
const MAX_MEMBERS: usize = 64;

/// First characters of a list of spaCy's pairs, after its bracket: each text is one.
const PAIR_HEAD: [u8; 4] = *b"[\",{";

/// First value of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstValue {
    /// An array, and the first byte of its first element.
    Array(Option<u8>),
    /// Start of an array of spaCy's pairs, each a text and an object.
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
pub(super) enum Lines {
    One,
    Several,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    /// The next value begins on the line on which the object ends.
    SameLine,
    MoreValues,
}

/// Name of an object with the start and the kind of its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub name: String,
    pub start: Position,
    pub kind: MemberKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberKind {
    Scalar,
    ListOfObjects,
    ListOfLists,
    /// List of spaCy's pairs of a text and an object.
    ListOfPairs,
    List,
    /// An object and its first name.
    Object(String),
}

impl FirstValue {
    /// Scans the first value of a source.
    pub fn scan(source: LineSource) -> io::Result<Self> {
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
