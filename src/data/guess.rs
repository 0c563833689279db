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

/// The shape whose field is mapped, or else is there; classes where none is, so that the check says what is missing.
///
/// # Errors
/// Only where the file cannot be read from disk.
pub fn guess(path: &Path, options: &Options) -> Result<Shape> {
    if let Some(mapped) = Shape::ALL.into_iter().find(|shape| options.columns.contains_key(shape.field())) {
        return Ok(mapped);
    }
    let reading = || format!("reading the dataset {}", path.display());
    let file = File::open(path).with_context(reading)?;
    let mut lines = BufReader::new(file.take(LOOKED_AT)).split(b'\n');
    let first = loop {
        match lines.next() {
            None => return Ok(Shape::default()),
            Some(line) => {
                let line = line.with_context(reading)?;
                if !line.trim_ascii().is_empty() {
                    break line;
                }
            }
        }
    };
    let names = names(&String::from_utf8_lossy(&first), options.format);
    let is_there = |shape: &Shape| names.iter().any(|name| name == shape.field());
    Ok(Shape::ALL.into_iter().find(is_there).unwrap_or_default())
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
        guess(file.path(), &Options { format, columns, on_bad_rows: OnBadRows::Refuse }).unwrap()
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
