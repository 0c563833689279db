//! Detection of a file's row schema from the names of its fields.

use super::content::Content;
use super::csv_reader::read_column_names;
use super::object_reader::first_field_names;
use super::objects::open_objects;
use super::options::{Limits, Options};
use crate::error::{Context, Result};
use crate::task::RowSchema;
use std::path::Path;

/// Chooses one of `candidates`: the first whose target field is mapped in the options, else the first whose fields are in
/// the file. Without either it is the first candidate, and validation reports the missing fields.
///
/// # Errors
/// Only if the file cannot be read from disk.
pub fn infer_schema(path: &Path, options: &Options, candidates: &[RowSchema], limits: &Limits) -> Result<RowSchema> {
    let read_context = || format!("reading the dataset {}", path.display());
    match Content::open(path, options, limits.max_bytes).with_context(read_context)? {
        Ok(content) => infer_content_schema(&content, options, candidates, limits).with_context(read_context),
        Err(_) => Ok(candidates.first().copied().unwrap_or_default()),
    }
}

/// The same for content that is open.
pub(super) fn infer_content_schema(
    content: &Content,
    options: &Options,
    candidates: &[RowSchema],
    limits: &Limits,
) -> std::io::Result<RowSchema> {
    let default_schema = candidates.first().copied().unwrap_or_default();
    let find = |matches: &dyn Fn(RowSchema) -> bool| candidates.iter().copied().find(|schema| matches(*schema));
    match find(&|schema| options.columns.contains_key(schema.target_field())) {
        Some(mapped) => return Ok(mapped),
        None if candidates.len() < 2 => return Ok(default_schema),
        None => {}
    }
    let field_names = read_field_names(content, options, limits)?;
    let has_field = |field: &str| field_names.iter().any(|name| name == field);
    // Rows may have further fields, such as the tags of a conversation, so a schema whose text field exists comes first.
    let complete_match = find(&|schema| has_field(schema.target_field()) && has_field(schema.text_field()));
    let target_match = || find(&|schema| has_field(schema.target_field()));
    Ok(complete_match.or_else(target_match).unwrap_or(default_schema))
}

/// Columns of the header, or fields of the first object; none if they cannot be parsed.
fn read_field_names(content: &Content, options: &Options, limits: &Limits) -> std::io::Result<Vec<String>> {
    match open_objects(content, options.format, limits)? {
        Some(Ok(source)) => first_field_names(source),
        Some(Err(_)) => Ok(Vec::new()),
        None => read_column_names(content.lines()?, options, limits.max_record_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::format::Format;
    use std::io::Write;

    fn infer_from_text(format: Format, text: &str, columns: &[(&str, &str)]) -> RowSchema {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let columns = columns.iter().map(|(field, name)| (field.to_string(), name.to_string())).collect();
        let limits = Limits { max_bytes: 1000, max_rows: 100, max_record_bytes: 1000, max_labels: 10 };
        infer_schema(file.path(), &Options { columns, ..Options::new(format) }, &RowSchema::DETECTABLE, &limits)
            .unwrap()
    }

    #[test]
    fn field_names_determine_the_schema() {
        assert_eq!(infer_from_text(Format::Csv, "\u{feff}text,\"label\"\na,b\n", &[]), RowSchema::Label);
        assert_eq!(infer_from_text(Format::Csv, "\ntext,labels\n", &[]), RowSchema::Labels);
        assert_eq!(infer_from_text(Format::Tsv, "text\tvalue\n", &[]), RowSchema::Value);
        assert_eq!(infer_from_text(Format::Jsonl, "\n{\"text\": \"a\", \"value\": 1}\n", &[]), RowSchema::Value);
        assert_eq!(infer_from_text(Format::Csv, "text,score\n", &[("value", "score")]), RowSchema::Value);
        // `label` comes before `value` in the order of detection.
        assert_eq!(infer_from_text(Format::Csv, "text,value,label\n", &[]), RowSchema::Label);
        // A quoted name may contain the separator.
        assert_eq!(infer_from_text(Format::Csv, "text,\"id, value\",value\n", &[]), RowSchema::Value);
        for unparsable in ["", "no json", "{\"text\": 1}"] {
            assert_eq!(infer_from_text(Format::Jsonl, unparsable, &[]), RowSchema::Label);
        }
    }
}
