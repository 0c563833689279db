//! Texts in formats that are not read, recognised by their first line, with the command that converts them.

use crate::dataset::diagnostics::{self, Diagnostic, quote};

/// Number of columns of CoNLL-U.
const CONLLU_COLUMNS: usize = 10;

/// Error for a text of no format that is read.
pub(super) fn unknown_text(sample: &[u8]) -> Diagnostic {
    let text = String::from_utf8_lossy(sample);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().next().unwrap_or_default();
    let message = match known_format(first, lines.by_ref().find(|line| !line.starts_with('#'))) {
        Some((format, conversion)) => format!("the file is {format}, which is not read as a dataset: {conversion}"),
        None => format!(
            "neither the content of the file nor its name says what it is; it begins with {}: send CSV with a header, JSON or JSON \
             lines, Parquet, xlsx, CoNLL, FASTA or fastText lines, or name its `\"format\"`, such as \"csv\", \"tsv\" or \"jsonl\". \
             A text on each line, for a language model, becomes JSON lines by `jq -Rc '{{text: .}}' rows.txt > rows.jsonl`",
            quote(first)
        ),
    };
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}

/// Error for a table that is no CSV: one in Markdown, whose second line consists of dashes, or the annotations of brat.
pub(super) fn refused_table(sample: &[u8]) -> Option<Diagnostic> {
    let mut lines = sample.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let (header, second) = (lines.next()?, lines.next().unwrap_or_default());
    if is_brat_line(header) {
        let message = "the file holds annotations of brat, apart from their text: write each text with its entities, as in \
             {\"text\": \"Riga is far\", \"entities\": [{\"start\": 0, \"end\": 4, \"label\": \"city\"}]}";
        return Some(Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message));
    }
    let is_rule = second.contains(&b'-') && second.iter().all(|byte| b"|-: ".contains(byte));
    (header.contains(&b'|') && second.contains(&b'|') && is_rule).then(|| {
        let message = "the file is a table in Markdown, which is not read as a dataset: convert it with \
             `sed -E '2d; s/^ *\\| *//; s/ *\\| *$//; s/ *\\| */|/g' rows.md > rows.csv`";
        Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
    })
}

/// Whether the columns are those of brat: `T1`, the label with its offsets, and the text of an entity.
fn is_brat_line(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut columns = line.split('\t');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = columns.next().and_then(|name| name.strip_prefix('T')).is_some_and(is_number);
    let offsets: Vec<&str> = columns.next().unwrap_or_default().split(' ').skip(1).collect();
    is_name && columns.next().is_some() && offsets.len() == 2 && offsets.into_iter().all(is_number)
}

/// Name of the format, and its conversion.
fn known_format(first_line: &str, first_without_comment: Option<&str>) -> Option<(&'static str, &'static str)> {
    let lower = first_line.to_lowercase();
    if ["<table", "<body", "<div"].iter().any(|start| lower.starts_with(start)) {
        return Some((
            "an HTML page",
            "convert its table with `python -c \"import pandas; pandas.read_html('rows.html')[0].to_csv('rows.csv', index=False)\"`",
        ));
    }
    if lower.starts_with("@relation") {
        return Some((
            "an ARFF file",
            "convert it with `sed '1,/@data/Id' rows.arff > rows.csv`, and put a line with the names of its attributes in front",
        ));
    }
    let is_yaml_row = first_line.strip_prefix("- ").is_some_and(|item| item.contains(": "));
    if is_yaml_row || first_line == "---" {
        return Some((
            "YAML",
            "convert it with `python -c \"import json, yaml; print(*map(json.dumps, yaml.safe_load(open('rows.yaml'))), sep='\\n')\" \
             > rows.jsonl`",
        ));
    }
    let is_word = |line: &str| line.starts_with("1\t") && line.split('\t').count() == CONLLU_COLUMNS;
    first_without_comment.is_some_and(is_word).then_some((
        "CoNLL-U",
        "keep the columns of the word and its tag with `grep -v '^#' rows.conllu | cut -f2,4 > rows.conll`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_with_their_conversion() {
        for (text, words) in [
            ("<table>\n<tr>", "read_html"),
            ("@RELATION x\n@data\n", "sed"),
            ("- text: a\n  label: b\n", "yaml"),
            ("# sent_id = 1\n1\tDogs\tdog\tNOUN\t_\t_\t_\t_\t_\t_\n", "cut -f2,4"),
            ("The lamp broke.\nThe chair is fine.\n", "jq -Rc"),
            ("- a dash, and a text\n", "it begins with \"- a dash"),
        ] {
            assert!(unknown_text(text.as_bytes()).message.contains(words), "{text}");
        }
        assert!(refused_table(b"T1\tcity 0 4\tRiga\n").unwrap().message.contains("brat"));
        assert!(refused_table(b"T1\tcity\tRiga\n").is_none());
        assert!(refused_table(b"| text | label |\n|---|:--|\n| a | b |\n").is_some());
        assert!(refused_table(b"text|label\na|-\n").is_none());
    }
}
