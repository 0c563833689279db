//! Blocks of real output in a page: ```` ```text http="FILE" ```` holds what the report or the error says, ```` ```text cli="FILE" ````
//! the command and what it writes. Settings of the case follow the file's name.

use super::Checked;
use std::collections::BTreeSet;

/// Width of wrapped lines.
const WIDTH: usize = 140;

/// The page with the blocks as they are now.
pub fn with_outputs(page: &str, checked: &[Checked]) -> String {
    let mut text = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let Some(output) = block_output(line, checked) else { continue };
        let end = lines.by_ref().find(|line| *line == "```");
        assert!(end.is_some(), "the block does not end: {line}");
        text.push_str(&output);
        text.push_str("```\n");
    }
    text
}

/// The page with a table of the sentences about fields, between its marks: one of each form.
pub fn with_sentences(page: &str, checked: &[Checked]) -> String {
    const MARKS: (&str, &str) = ("<!-- sentences about fields -->\n", "<!-- end of sentences about fields -->");
    let (before, rest) = page.split_once(MARKS.0).expect("the page has the first mark");
    let (_, after) = rest.split_once(MARKS.1).expect("the page has the second mark");
    let mut table = "| sentence | file |\n|---|---|\n".to_string();
    let mut forms = BTreeSet::new();
    for Checked { case, http, .. } in checked {
        for sentence in http.report.mapping.iter().filter(|sentence| forms.insert(form(sentence))) {
            table.push_str(&format!("| {} | `{}` |\n", sentence.replace('|', "\\|"), case.file));
        }
    }
    format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1)
}

/// The sentence without names of fields and columns.
fn form(sentence: &str) -> String {
    sentence.split(['`', '"', '\'']).step_by(2).collect::<Vec<_>>().join("…")
}

/// Content of the block that this line opens.
fn block_output(line: &str, checked: &[Checked]) -> Option<String> {
    let attributes = line.strip_prefix("```text ")?;
    let (kind, case) = attributes.split_once('=')?;
    let case = case.strip_prefix('"')?.strip_suffix('"')?;
    let (file, settings) = case.split_once(' ').unwrap_or((case, "{}"));
    let options: serde_json::Value = serde_json::from_str(settings).unwrap();
    let found = checked.iter().find(|checked| checked.case.file == file && checked.case.options == options);
    let found = found.unwrap_or_else(|| panic!("no case is {case}"));
    match kind {
        "http" => Some(found.http.sentences.iter().map(|sentence| wrapped(sentence)).collect()),
        "cli" => {
            let flags: String = found.case.flags().iter().map(|flag| format!(" {flag}")).collect();
            Some(format!("$ espalier train {} --validate-only{flags}\n{}", found.case.name(), found.printed))
        }
        _ => panic!("{line}: http or cli"),
    }
}

/// The sentence in lines.
fn wrapped(sentence: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in sentence.split(' ') {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > WIDTH {
            lines.push('\n');
            length = 0;
        }
        if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += word_length;
    }
    lines.push('\n');
    lines
}
