//! Format of a dataset file, and the separator and the quotes of its columns.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

/// Format of a dataset file. It is found in the content of the file where a request leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Columns with a header, separated by commas, or by another `separator`.
    Csv,
    /// Columns with a header, separated by tabs.
    Tsv,
    /// One JSON object per line.
    Jsonl,
    /// A JSON array of objects, alone or in an object (`{"data": […]}`), or JSON objects one after another.
    Json,
    /// Apache Parquet.
    Parquet,
    /// First sheet with a header of an Excel workbook.
    Xlsx,
    /// A token and its tag per line, and a blank line between sentences.
    Conll,
    /// Sequences with a header line `>id|label`.
    Fasta,
    /// A text with its `__label__x` per line.
    Fasttext,
}

/// Character between two columns: printable ASCII that is no letter, digit or quote, or a tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, example = ";")]
pub struct Separator(u8);

/// Meaning of double quotes in a file with columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quoting {
    /// A field may stand in quotes, and a quote inside it is doubled (RFC 4180).
    #[default]
    Doubled,
    /// A field may stand in quotes, and a quote inside it follows a backslash.
    Backslash,
    /// Quotes are ordinary characters.
    None,
}

impl Format {
    /// Separator of the columns unless the options name another; `None` for formats without columns.
    pub(super) fn default_separator(self) -> Option<Separator> {
        match self {
            Self::Csv | Self::Xlsx => Some(Separator::COMMA),
            Self::Tsv => Some(Separator::TAB),
            Self::Jsonl | Self::Json | Self::Parquet | Self::Conll | Self::Fasta | Self::Fasttext => None,
        }
    }

    /// Format that a file name's extension or, without one, a content type says. It counts only where the content allows several
    /// formats.
    pub(super) fn from_metadata(file_name: Option<&str>, content_type: Option<&str>) -> Option<Self> {
        file_name.and_then(Self::from_file_name).or_else(|| content_type.and_then(Self::from_content_type))
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zip")).unwrap_or(&name);
        let (_, extension) = name.rsplit_once('.')?;
        match extension {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "conll" | "iob" | "iob2" | "bio" => Some(Self::Conll),
            "fasta" | "fa" | "faa" | "fna" => Some(Self::Fasta),
            _ => None,
        }
    }

    fn from_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "text/csv" | "application/csv" | "text/x-csv" => Some(Self::Csv),
            "text/tab-separated-values" => Some(Self::Tsv),
            "application/json" => Some(Self::Json),
            "application/jsonl"
            | "application/x-jsonlines"
            | "application/jsonlines"
            | "application/x-ndjson"
            | "application/ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

impl Separator {
    pub(super) const COMMA: Self = Self(b',');
    pub(super) const TAB: Self = Self(b'\t');
    /// Separators that are looked for in a header, the most usual first.
    pub(super) const DETECTABLE: [Self; 4] = [Self::COMMA, Self::TAB, Self(b';'), Self(b'|')];

    /// Reads a separator as a request writes it: the character, `\t` or `tab`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let byte = match text.as_bytes() {
            b"\\t" | b"tab" => b'\t',
            [byte] => *byte,
            _ => b'"',
        };
        match Self::from_byte(byte) {
            Some(separator) => Ok(separator),
            None => Err(format!(
                "the separator {text:?} is not one of , ; | \\t or another single character that is no letter, digit or quote"
            )),
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let is_separator = byte == b'\t' || byte == b' ' || (byte.is_ascii_punctuation() && !b"\"'\\".contains(&byte));
        is_separator.then_some(Self(byte))
    }

    pub(super) fn byte(self) -> u8 {
        self.0
    }
}

impl Quoting {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Serialize for Separator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_char(char::from(self.0))
    }
}

impl<'de> Deserialize<'de> for Separator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_wins_over_content_type() {
        assert_eq!(Format::from_metadata(Some("a.b.TSV"), Some("text/csv")), Some(Format::Tsv));
        assert_eq!(Format::from_metadata(Some("rows.csv.gz"), Some("application/gzip")), Some(Format::Csv));
        assert_eq!(Format::from_metadata(Some("rows"), Some("Text/CSV; charset=utf-8")), Some(Format::Csv));
        assert_eq!(Format::from_metadata(Some("rows.txt"), Some("application/octet-stream")), None);
    }

    #[test]
    fn separators_are_single_characters_that_no_text_needs() {
        for (text, separator) in [(";", Some(b';')), ("\t", Some(b'\t')), ("\\t", Some(b'\t')), ("tab", Some(b'\t'))] {
            assert_eq!(Separator::parse(text).ok().map(Separator::byte), separator);
        }
        for refused in ["", "a", "5", "\"", "\n", "::", "é"] {
            assert!(Separator::parse(refused).is_err(), "{refused:?}");
        }
        assert_eq!(serde_json::to_string(&Separator::TAB).unwrap(), "\"\\t\"");
    }
}
