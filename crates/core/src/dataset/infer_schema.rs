//! Which task a file is for, where nobody says it: its fields decide. Looks at the header, or at the first object.

use super::{Format, Options};
use crate::error::{Context, Result};
use crate::task::RowSchema;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// What is read of the file at most.
const MAX_SNIFFED_BYTES: u64 = 1 << 20;

/// Of these shapes the one whose field is mapped, or else is there; the first where none is, so that the check says what is
/// missing.
///
/// # Errors
/// Only where the file cannot be read from disk.
pub fn infer_schema(path: &Path, options: &Options, candidates: &[RowSchema]) -> Result<RowSchema> {
    let default_schema = candidates.first().copied().unwrap_or_default();
    let candidate_with = |is: &dyn Fn(&str) -> bool| candidates.iter().copied().find(|shape| is(shape.target_field()));
    match candidate_with(&|field| options.columns.contains_key(field)) {
        Some(mapped) => return Ok(mapped),
        None if candidates.len() < 2 => return Ok(default_schema),
        None => {}
    }
    let read_context = || format!("reading the dataset {}", path.display());
    let file = File::open(path).with_context(read_context)?;
    let mut lines = BufReader::new(file.take(MAX_SNIFFED_BYTES)).split(b'\n');
    let first_line = loop {
        match lines.next() {
            None => return Ok(default_schema),
            Some(line) => {
                let line = line.with_context(read_context)?;
                if !line.trim_ascii().is_empty() {
                    break line;
                }
            }
        }
    };
    let field_names = parse_field_names(&String::from_utf8_lossy(&first_line), options.format);
    let has_field = |field: &str| field_names.iter().any(|name| name == field);
    // Beside what a row teaches there may be other fields, such as a conversation's tags: its text has to be there, too.
    let complete_match =
        candidates.iter().copied().find(|shape| has_field(shape.target_field()) && has_field(shape.text_field()));
    Ok(complete_match.or_else(|| candidate_with(&has_field)).unwrap_or(default_schema))
}

fn parse_field_names(line: &str, format: Format) -> Vec<String> {
    let line = line.trim_start_matches('\u{feff}').trim();
    let split_columns =
        |separator: char| line.split(separator).map(|name| name.trim().trim_matches('"').to_string()).collect();
    match format {
        Format::Csv => split_columns(','),
        Format::Tsv => split_columns('\t'),
        Format::Jsonl => {
            let object: Option<BTreeMap<String, serde::de::IgnoredAny>> = serde_json::from_str(line).ok();
            object.unwrap_or_default().into_keys().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::OnBadRows;
    use std::io::Write;

    fn infer_from_text(format: Format, text: &str, columns: &[(&str, &str)]) -> RowSchema {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let columns = columns.iter().map(|(field, name)| (field.to_string(), name.to_string())).collect();
        infer_schema(file.path(), &Options { format, columns, on_bad_rows: OnBadRows::Refuse }, &RowSchema::DETECTABLE)
            .unwrap()
    }

    #[test]
    fn field_names_determine_the_schema() {
        assert_eq!(infer_from_text(Format::Csv, "\u{feff}text,\"label\"\na,b\n", &[]), RowSchema::Label);
        assert_eq!(infer_from_text(Format::Csv, "\ntext,labels\n", &[]), RowSchema::Labels);
        assert_eq!(infer_from_text(Format::Tsv, "text\tvalue\n", &[]), RowSchema::Value);
        assert_eq!(infer_from_text(Format::Jsonl, "\n{\"text\": \"a\", \"value\": 1}\n", &[]), RowSchema::Value);
        assert_eq!(infer_from_text(Format::Csv, "text,score\n", &[("value", "score")]), RowSchema::Value);
        // A label is a class even where a value stands beside it.
        assert_eq!(infer_from_text(Format::Csv, "text,value,label\n", &[]), RowSchema::Label);
        for unparsable in ["", "no json", "{\"text\": 1}"] {
            assert_eq!(infer_from_text(Format::Jsonl, unparsable, &[]), RowSchema::Label);
        }
    }
}
