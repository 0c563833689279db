//! How a dataset file is read: format, mapping of columns, treatment of bad rows, and the server's limits.

use super::number_format::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How a file is read. Stored with the job, because it decides the bytes of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Options {
    pub format: Format,
    /// From the task's field (`text`, `text_pair`, `label` …) to the file's column.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    #[serde(default)]
    pub on_bad_rows: OnBadRows,
    /// Names of the labels or tags that the file gives as numbers: integers are indices into this list, and a list of zeros and ones has
    /// one for each name. Names of columns of zeros and ones make these the labels of each row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_names: Vec<String>,
    /// Character before the fraction of the file's numbers. Left out, numbers have a point, no groups of thousands and no unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimal: Option<Decimal>,
    /// Rows to read of a file with a column `split` or `set`. Default: `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// Part of a dataset whose rows say which part they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
    Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Csv,
    Tsv,
    Jsonl,
}

/// What to do with rows that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRows {
    #[default]
    Refuse,
    Skip,
}

impl Options {
    /// Default options of a format.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            columns: BTreeMap::new(),
            on_bad_rows: OnBadRows::default(),
            label_names: Vec::new(),
            decimal: None,
            split: None,
        }
    }
}

impl Split {
    /// Words that mean the split in files, in lower case.
    pub(super) const WORDS: [(&'static str, Self); 13] = [
        ("train", Self::Train),
        ("training", Self::Train),
        ("trn", Self::Train),
        ("validation", Self::Validation),
        ("valid", Self::Validation),
        ("validate", Self::Validation),
        ("val", Self::Validation),
        ("dev", Self::Validation),
        ("development", Self::Validation),
        ("eval", Self::Validation),
        ("test", Self::Test),
        ("testing", Self::Test),
        ("tst", Self::Test),
    ];

    pub(super) fn from_word(word: &str) -> Option<Self> {
        let word = word.trim().to_lowercase();
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, split)| *split)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// Largest dataset that the server accepts; every limit is a setting of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_bytes: u64,
    pub max_rows: u64,
    pub max_record_bytes: usize,
    pub max_labels: usize,
}

impl Format {
    /// Detects the format from the file name's extension, else from the content type. The extension comes first, because
    /// browsers send wrong content types for CSV files. The content of the file is not used.
    pub fn detect(file_name: Option<&str>, content_type: Option<&str>) -> Option<Self> {
        file_name.and_then(Self::from_file_name).or_else(|| content_type.and_then(Self::from_content_type))
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }

    fn from_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "text/csv" | "application/csv" | "text/x-csv" => Some(Self::Csv),
            "text/tab-separated-values" => Some(Self::Tsv),
            "application/jsonl"
            | "application/x-jsonlines"
            | "application/jsonlines"
            | "application/x-ndjson"
            | "application/ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }

    /// Separator of the columns; `None` for JSON lines.
    pub(super) fn separator(self) -> Option<u8> {
        match self {
            Self::Csv => Some(b','),
            Self::Tsv => Some(b'\t'),
            Self::Jsonl => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_older_jobs_are_read() {
        let stored = r#"{"format":"csv","columns":{"label":"a"},"on_bad_rows":"skip"}"#;
        let options: Options = serde_json::from_str(stored).unwrap();
        assert_eq!((options.label_names.len(), options.decimal, options.split), (0, None, None));
        assert_eq!(serde_json::to_string(&options).unwrap(), stored);
        let options: Options =
            serde_json::from_str(r#"{"format":"csv","label_names":["a"],"decimal":",","split":"test"}"#).unwrap();
        assert_eq!((options.decimal, options.split), (Some(Decimal::Comma), Some(Split::Test)));
    }

    #[test]
    fn extension_wins_over_content_type() {
        assert_eq!(Format::detect(Some("a.b.TSV"), Some("text/csv")), Some(Format::Tsv));
        assert_eq!(Format::detect(Some("rows.csv"), Some("application/vnd.ms-excel")), Some(Format::Csv));
        assert_eq!(Format::detect(Some("rows.ndjson"), None), Some(Format::Jsonl));
    }

    #[test]
    fn falls_back_to_content_type() {
        assert_eq!(Format::detect(Some("rows"), Some("Text/CSV; charset=utf-8")), Some(Format::Csv));
        assert_eq!(Format::detect(None, Some("application/x-ndjson")), Some(Format::Jsonl));
    }

    #[test]
    fn unknown_names_and_types_give_none() {
        assert_eq!(Format::detect(None, None), None);
        assert_eq!(Format::detect(Some("rows.xlsx"), Some("application/octet-stream")), None);
    }
}
