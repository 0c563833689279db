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

/// Error for a table in Markdown, whose second line consists of dashes.
pub(super) fn markdown_table(sample: &[u8]) -> Option<Diagnostic> {
    let mut lines = sample.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let (header, second) = (lines.next()?, lines.next()?);
    let is_rule = second.contains(&b'-') && second.iter().all(|byte| b"|-: ".contains(byte));
    (header.contains(&b'|') && second.contains(&b'|') && is_rule).then(|| {
        let message = "the file is a table in Markdown, which is not read as a dataset: convert it with \
             `sed -E '2d; s/^ *\\| *//; s/ *\\| *$//; s/ *\\| */|/g' rows.md > rows.csv`";
        Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
    })
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
        assert!(markdown_table(b"| text | label |\n|---|:--|\n| a | b |\n").is_some());
        assert!(markdown_table(b"text|label\na|-\n").is_none());
    }
}
