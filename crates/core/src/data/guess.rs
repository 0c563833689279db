//! Which task a file is for, where nobody says it: its fields decide. Looks at the header, or at the first object.

use super::{Format, Options};
use crate::error::{Context, Result};
use crate::task::Shape;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// What is read of the file at most.
const LOOKED_AT: u64 = 1 << 20;

/// Of these shapes the one whose field is mapped, or else is there; the first where none is, so that the check says what is
/// missing.
///
/// # Errors
/// Only where the file cannot be read from disk.
pub fn guess(path: &Path, options: &Options, shapes: &[Shape]) -> Result<Shape> {
    let first = shapes.first().copied().unwrap_or_default();
    let of = |is: &dyn Fn(&str) -> bool| shapes.iter().copied().find(|shape| is(shape.field()));
    match of(&|field| options.columns.contains_key(field)) {
        Some(mapped) => return Ok(mapped),
        None if shapes.len() < 2 => return Ok(first),
        None => {}
    }
    let reading = || format!("reading the dataset {}", path.display());
    let file = File::open(path).with_context(reading)?;
    let mut lines = BufReader::new(file.take(LOOKED_AT)).split(b'\n');
    let header = loop {
        match lines.next() {
            None => return Ok(first),
            Some(line) => {
                let line = line.with_context(reading)?;
                if !line.trim_ascii().is_empty() {
                    break line;
                }
            }
        }
    };
    let names = names(&String::from_utf8_lossy(&header), options.format);
    let has = |field: &str| names.iter().any(|name| name == field);
    // Beside what a row teaches there may be other fields, such as a conversation's tags: its text has to be there, too.
    let whole = shapes.iter().copied().find(|shape| has(shape.field()) && has(shape.text()));
    Ok(whole.or_else(|| of(&has)).unwrap_or(first))
}

fn names(line: &str, format: Format) -> Vec<String> {
    let line = line.trim_start_matches('\u{feff}').trim();
    let columns =
        |separator: char| line.split(separator).map(|name| name.trim().trim_matches('"').to_string()).collect();
    match format {
        Format::Csv => columns(','),
        Format::Tsv => columns('\t'),
        Format::Jsonl => {
            let object: Option<BTreeMap<String, serde::de::IgnoredAny>> = serde_json::from_str(line).ok();
            object.unwrap_or_default().into_keys().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::OnBadRows;
    use std::io::Write;

    fn guessed(format: Format, text: &str, columns: &[(&str, &str)]) -> Shape {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let columns = columns.iter().map(|(field, name)| (field.to_string(), name.to_string())).collect();
        guess(file.path(), &Options { format, columns, on_bad_rows: OnBadRows::Refuse }, &Shape::TOLD).unwrap()
    }

    #[test]
    fn the_fields_decide() {
        assert_eq!(guessed(Format::Csv, "\u{feff}text,\"label\"\na,b\n", &[]), Shape::Label);
        assert_eq!(guessed(Format::Csv, "\ntext,labels\n", &[]), Shape::Labels);
        assert_eq!(guessed(Format::Tsv, "text\tvalue\n", &[]), Shape::Value);
        assert_eq!(guessed(Format::Jsonl, "\n{\"text\": \"a\", \"value\": 1}\n", &[]), Shape::Value);
        assert_eq!(guessed(Format::Csv, "text,score\n", &[("value", "score")]), Shape::Value);
        // A label is a class even where a value stands beside it.
        assert_eq!(guessed(Format::Csv, "text,value,label\n", &[]), Shape::Label);
        for unclear in ["", "no json", "{\"text\": 1}"] {
            assert_eq!(guessed(Format::Jsonl, unclear, &[]), Shape::Label);
        }
    }
}
