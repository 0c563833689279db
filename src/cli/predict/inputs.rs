//! Inputs of `espalier predict`: reads texts and true labels from CSV, TSV, JSONL and text files.

use crate::cli::error::{CliError, CliResult};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Text with its true label, if known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub text: String,
    pub label: Option<String>,
}

/// Columns (CSV, TSV) or fields (JSONL) to read.
#[derive(Debug, Clone)]
pub struct ColumnNames {
    pub text: String,
    pub label: Option<String>,
}

impl Input {
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), label: None }
    }
}

/// Reads a file in the format of its extension: `.csv`, `.tsv`, `.jsonl`, otherwise one text per line. `-` is standard input.
///
/// # Errors
/// `InvalidInput` with the file, and the line if known.
pub fn read_inputs(path: &Path, columns: &ColumnNames) -> CliResult<Vec<Input>> {
    let name = path.display().to_string();
    let file_error = |reason: String| CliError::invalid_input(format!("{name}: {reason}"));
    let bytes = if name == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let text = String::from_utf8(bytes.map_err(|error| file_error(error.to_string()))?)
        .map_err(|error| file_error(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let inputs = match path.extension().and_then(|ending| ending.to_str()).unwrap_or_default() {
        "csv" => parse_csv(text, b',', columns),
        "tsv" => parse_csv(text, b'\t', columns),
        "jsonl" | "ndjson" => parse_jsonl(text, columns),
        _ => Ok(text.lines().filter(|line| !line.trim().is_empty()).map(Input::from_text).collect()),
    };
    match inputs {
        Ok(inputs) if inputs.is_empty() => Err(file_error("there is no text in it".to_string())),
        Ok(inputs) => Ok(inputs),
        Err((line, reason)) => Err(CliError::invalid_input(format!("{name}:{line}: {reason}"))),
    }
}

/// Parsed value, or the line number and the reason of the error.
type ParseResult<T> = Result<T, (u64, String)>;

fn parse_csv(text: &str, delimiter: u8, columns: &ColumnNames) -> ParseResult<Vec<Input>> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| (1, error.to_string()))?.clone();
    let column_index = |name: &str| {
        let index = header.iter().position(|column| column == name);
        let header_names: Vec<&str> = header.iter().collect();
        index.ok_or_else(|| (1, format!("there is no column \"{name}\"; there are {}", header_names.join(", "))))
    };
    let text_index = column_index(&columns.text)?;
    let label_index = columns.label.as_deref().map(column_index).transpose()?;
    reader
        .records()
        .map(|record| {
            let record = record.map_err(|error| {
                let line = error.position().map_or(0, csv::Position::line);
                (line, format!("the record cannot be read: {error}"))
            })?;
            let cell = |at: usize| record.get(at).unwrap_or_default().to_string();
            Ok(Input { text: cell(text_index), label: label_index.map(cell) })
        })
        .collect()
}

fn parse_jsonl(text: &str, columns: &ColumnNames) -> ParseResult<Vec<Input>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let line_number = index as u64 + 1;
            let object: Value =
                serde_json::from_str(line).map_err(|error| (line_number, format!("this is not JSON: {error}")))?;
            let field = |name: &str| {
                let value = object.get(name).and_then(Value::as_str);
                value
                    .map(str::to_string)
                    .ok_or_else(|| (line_number, format!("the field \"{name}\" is missing, or is no text")))
            };
            Ok(Input { text: field(&columns.text)?, label: columns.label.as_deref().map(field).transpose()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_temp_file(name: &str, text: &str, label: Option<&str>) -> CliResult<Vec<Input>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_inputs(&path, &ColumnNames { text: "text".to_string(), label: label.map(str::to_string) })
    }

    #[test]
    fn format_follows_the_file_extension() {
        let both = [Input { text: "one".to_string(), label: Some("a".to_string()) }];
        assert_eq!(read_temp_file("x.csv", "\u{feff}text,label\none,a\n", Some("label")).unwrap(), both);
        assert_eq!(read_temp_file("x.tsv", "label\ttext\na\tone\n", Some("label")).unwrap(), both);
        assert_eq!(
            read_temp_file("x.jsonl", "{\"text\": \"one\", \"label\": \"a\"}\n\n", Some("label")).unwrap(),
            both
        );
        assert_eq!(
            read_temp_file("x.txt", "one\n\ntwo\n", None).unwrap(),
            [Input::from_text("one"), Input::from_text("two")]
        );
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = |name, text| read_temp_file(name, text, None).unwrap_err().message().unwrap();
        assert!(error("x.csv", "body\none\n").contains("x.csv:1: there is no column \"text\"; there are body"));
        assert!(error("x.csv", "text,n\none,1\ntwo\n").contains("x.csv:3: "));
        assert!(error("x.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n").contains("x.jsonl:2: the field \"text\""));
        assert!(error("x.txt", "\n").contains("no text in it"));
    }
}
