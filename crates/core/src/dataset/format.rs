//! Which format a file has, by its name or the content type it came with. Never looks into the file.

use super::Format;

impl Format {
    /// The name's ending decides; browsers send odd content types for tables. `None` where neither says it.
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
