//! Detection of a file's row schema from the names and values of its fields.

use super::content::Content;
use super::field_columns::FieldColumns;
use super::options::{Limits, Options};
use super::preview::Preview;
use crate::error::{Context, Result};
use crate::task::RowSchema;
use std::path::Path;

/// Chooses one of `candidates`: the first whose target field is mapped in the options, else the one whose fields and values are
/// in the file. Without either it is the first candidate, and validation reports the missing fields.
///
/// # Errors
/// Only if the file cannot be read from disk.
pub fn infer_schema(path: &Path, options: &Options, candidates: &[RowSchema], limits: &Limits) -> Result<RowSchema> {
    let default_schema = candidates.first().copied().unwrap_or_default();
    if candidates.len() < 2 {
        return Ok(default_schema);
    }
    let read_context = || format!("reading the dataset {}", path.display());
    let Ok(content) = Content::open(path, options, limits.max_bytes).with_context(read_context)? else {
        return Ok(default_schema);
    };
    Ok(match Preview::read(&content, options, limits).with_context(read_context)? {
        Ok(preview) => best_schema(&preview, options, candidates),
        Err(_) => default_schema,
    })
}

/// The candidate that fits best, the first one of equals.
pub(super) fn best_schema(preview: &Preview, options: &Options, candidates: &[RowSchema]) -> RowSchema {
    let mut best = (0, candidates.first().copied().unwrap_or_default());
    for schema in candidates {
        let rank = FieldColumns::find(*schema, options, preview).rank();
        if rank > best.0 {
            best = (rank, *schema);
        }
    }
    best.1
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
        let options = Options { columns, ..Options::new(format) };
        let limits = Limits { max_bytes: 1 << 20, max_rows: 1000, max_record_bytes: 1 << 16, max_labels: 100 };
        infer_schema(file.path(), &options, &RowSchema::DETECTABLE, &limits).unwrap()
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

    #[test]
    fn values_decide_between_schemas_of_one_name() {
        for (line, schema) in [
            (r#"{"text": "a", "label": [[0, 1, "x"]]}"#, RowSchema::Entities),
            (r#"{"text": "a", "label": ["x", "y"]}"#, RowSchema::Labels),
            (r#"{"text": "a", "label": ["x"]}"#, RowSchema::Label),
            (r#"{"text": "a", "labels": 1}"#, RowSchema::Label),
            (r#"{"text": "a", "labels": ["x"]}"#, RowSchema::Labels),
            (r#"{"sequence": "a", "target": 0.25}"#, RowSchema::Value),
            (r#"{"sequence": "a", "target": 1}"#, RowSchema::Label),
            (r#"{"question": "a", "answer": "b"}"#, RowSchema::Completion),
            (r#"{"query": "a", "passage": "b"}"#, RowSchema::Positive),
            (r#"{"query": "a", "passage": "b", "relevance": 0}"#, RowSchema::Label),
            (r#"{"sentence1": "a", "sentence2": "b", "similarity_score": 0.5}"#, RowSchema::Score),
            (r#"{"query": "a", "pos": ["b"]}"#, RowSchema::Positive),
            (r#"{"prompt": "a", "completion": "b", "label": true}"#, RowSchema::Completion),
            (r#"{"tokens": ["a"], "ner_tags": [0]}"#, RowSchema::Tags),
            (r#"{"instruction": "a", "input": "b", "output": "c"}"#, RowSchema::Completion),
            (
                r#"{"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}, "rejected": {}}"#,
                RowSchema::Chosen,
            ),
            (r#"{"messages": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}"#, RowSchema::Chosen),
            (r#"{"prompt": "a", "messages": [{"role": "user"}], "chosen": "b", "rejected": "c"}"#, RowSchema::Chosen),
        ] {
            assert_eq!(infer_from_text(Format::Jsonl, line, &[]), schema, "{line}");
        }
    }
}
