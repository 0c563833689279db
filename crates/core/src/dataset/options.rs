//! How a dataset file is read: format, mapping of columns, treatment of bad rows, and the server's limits.

use super::format::{Format, Quoting, Separator};
use super::number_format::Decimal;
use super::text_encoding::TextEncoding;
use crate::task::Split;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How a file is read. Stored with the job, because it decides the bytes of the result: everything that is found in the content of
/// the file at its submission is written down here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Options {
    pub format: Format,
    /// Character between two columns; left out where it is that of the format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<Separator>,
    /// Meaning of double quotes in a file with columns.
    #[serde(default, skip_serializing_if = "Quoting::is_default")]
    pub quoting: Quoting,
    /// Encoding of the text; UTF-8 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<TextEncoding>,
    /// From the task's field (`text`, `text_pair`, `label` …) to the file's column.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    #[serde(default)]
    pub on_bad_rows: OnBadRows,
    /// Names of the labels or tags that the file gives as numbers: integers are indices into this list, and a list of zeros and ones has
    /// one for each name. Names of columns of zeros and ones make these the labels of each row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_names: Vec<String>,
    /// Character between the labels of a text with several. Left out, it is `;`, or `|` or `,` where parts of labels repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_separator: Option<Separator>,
    /// Character before the fraction of the file's numbers. Left out, numbers have a point, no groups of thousands and no unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimal: Option<Decimal>,
    /// Rows to read of a file with a column `split` or `set`. Default: `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// What a request says about the format of a file. What it leaves out is found in the content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedFormat {
    pub format: Option<Format>,
    pub separator: Option<Separator>,
    pub quoting: Option<Quoting>,
    pub encoding: Option<TextEncoding>,
}

/// What to do with rows that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRows {
    #[default]
    Refuse,
    Skip,
}

/// Largest dataset that the server accepts; every limit is a setting of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the file, and of its content where it is packed or in another encoding than UTF-8.
    pub max_bytes: u64,
    pub max_rows: u64,
    pub max_record_bytes: usize,
    pub max_labels: usize,
}

impl Options {
    /// Options of a UTF-8 file whose columns need no mapping.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            separator: None,
            quoting: Quoting::default(),
            encoding: None,
            columns: BTreeMap::new(),
            on_bad_rows: OnBadRows::default(),
            label_names: Vec::new(),
            label_separator: None,
            decimal: None,
            split: None,
        }
    }

    /// Options that read other rows of the file.
    pub fn with_split(&self, split: Split) -> Self {
        Self { split: Some(split), ..self.clone() }
    }

    /// Whether the text is read without decoding, so that bytes may be no UTF-8.
    pub(super) fn expects_utf8(&self) -> bool {
        self.encoding.is_none() && !matches!(self.format, Format::Parquet | Format::Xlsx)
    }

    /// Separator of the columns; `None` for formats without columns.
    pub(super) fn separator(&self) -> Option<Separator> {
        self.format.default_separator().map(|default| self.separator.unwrap_or(default))
    }
}

impl RequestedFormat {
    /// Whether nothing is requested.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_options_of_earlier_versions_are_read_and_written_unchanged() {
        let stored = r#"{"format":"tsv","columns":{"label":"category"},"on_bad_rows":"skip"}"#;
        let options: Options = serde_json::from_str(stored).unwrap();
        assert_eq!(options.separator(), Some(Separator::TAB));
        assert_eq!((options.quoting, options.encoding), (Quoting::Doubled, None));
        assert_eq!((options.label_names.len(), options.decimal, options.split), (0, None, None));
        assert_eq!(serde_json::to_string(&options).unwrap(), stored);
        let options: Options =
            serde_json::from_str(r#"{"format":"csv","label_names":["a"],"decimal":",","split":"test"}"#).unwrap();
        assert_eq!((options.decimal, options.split), (Some(Decimal::Comma), Some(Split::Test)));
    }

    #[test]
    fn detected_settings_are_stored() {
        let text = r#"{"format":"csv","separator":";","quoting":"none","encoding":"windows-1252","columns":{},"on_bad_rows":"refuse"}"#;
        let options: Options = serde_json::from_str(text).unwrap();
        assert_eq!(options.separator().map(Separator::byte), Some(b';'));
        assert_eq!(serde_json::to_string(&options).unwrap(), text);
    }
}
