//! Which format a file has, by its name or the content type it came with. Never looks into the file.

use super::Format;

impl Format {
    /// The name's ending decides; browsers send odd content types for tables. `None` where neither says it.
    pub fn guess(file_name: Option<&str>, content_type: Option<&str>) -> Option<Self> {
        file_name.and_then(Self::of_name).or_else(|| content_type.and_then(Self::of_content_type))
    }

    fn of_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }

    fn of_content_type(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides_before_the_content_type() {
        assert_eq!(Format::guess(Some("a.b.TSV"), Some("text/csv")), Some(Format::Tsv));
        assert_eq!(Format::guess(Some("rows.csv"), Some("application/vnd.ms-excel")), Some(Format::Csv));
        assert_eq!(Format::guess(Some("rows.ndjson"), None), Some(Format::Jsonl));
    }

    #[test]
    fn the_content_type_decides_where_the_name_says_nothing() {
        assert_eq!(Format::guess(Some("rows"), Some("Text/CSV; charset=utf-8")), Some(Format::Csv));
        assert_eq!(Format::guess(None, Some("application/x-ndjson")), Some(Format::Jsonl));
    }

    #[test]
    fn nothing_is_guessed_from_nothing() {
        assert_eq!(Format::guess(None, None), None);
        assert_eq!(Format::guess(Some("rows.xlsx"), Some("application/octet-stream")), None);
    }
}
