//! CoNLL: a token and its tag per line, and a blank line between sentences.

use super::object_source::{ObjectSource, SourceObject};
use super::text_lines::TextLines;
use crate::dataset::detect::{CONLL_DOCUMENT, conll_columns};
use crate::dataset::diagnostics::{self, Diagnostic, quote, quote_list};
use crate::dataset::line_source::LineSource;
use crate::dataset::row::record_too_long;
use serde_json::json;
use std::borrow::Cow;
use std::io;

/// Names that a first line may give to its columns.
const TOKEN_NAMES: [&str; 6] = ["token", "tokens", "word", "words", "text", "form"];

/// Joins the lines of a sentence into an object `{"tokens": […], "tags": […]}`.
pub(super) struct Sentences {
    lines: TextLines,
    max_sentence_bytes: usize,
    has_read_line: bool,
    has_warned: bool,
    warnings: Vec<(u64, Diagnostic)>,
}

/// Sentence so far.
#[derive(Default)]
struct Sentence {
    first_line: Option<u64>,
    tokens: Vec<String>,
    tags: Vec<String>,
    bytes: usize,
    error: Option<Diagnostic>,
}

impl Sentences {
    pub fn new(source: LineSource, max_sentence_bytes: usize) -> Self {
        let lines = TextLines::new(source, max_sentence_bytes);
        Self { lines, max_sentence_bytes, has_read_line: false, has_warned: false, warnings: Vec::new() }
    }
}

impl ObjectSource for Sentences {
    fn next_object(&mut self) -> io::Result<Option<SourceObject<'_>>> {
        let mut sentence = Sentence::default();
        while let Some(line) = self.lines.next_line()? {
            let is_first_line = !std::mem::replace(&mut self.has_read_line, true);
            let text = match line.text {
                Ok(text) => text.trim_end(),
                Err(diagnostic) => {
                    sentence.fail(line.number, diagnostic);
                    continue;
                }
            };
            let is_comment = text.starts_with('#') && conll_columns(text).is_none_or(|columns| columns[0] == "#");
            if text.trim().is_empty() || text.starts_with(CONLL_DOCUMENT) {
                if sentence.first_line.is_some() {
                    break;
                }
            } else if let Some(columns) = conll_columns(text) {
                if is_comment || (is_first_line && TOKEN_NAMES.contains(&columns[0].to_ascii_lowercase().as_str())) {
                    continue;
                }
                if let [_, others @ .., _] = columns.as_slice()
                    && !others.is_empty()
                    && !self.has_warned
                {
                    self.has_warned = true;
                    self.warnings.push((line.number, columns_not_read(others)));
                }
                sentence.push(line.number, &columns, self.max_sentence_bytes);
            } else if !is_comment {
                sentence.fail(line.number, single_column(line.number, text));
            }
        }
        Ok(sentence.into_object())
    }

    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        std::mem::take(&mut self.warnings)
    }
}

impl Sentence {
    fn push(&mut self, line: u64, columns: &[&str], max_bytes: usize) {
        self.first_line.get_or_insert(line);
        let (Some(token), Some(tag)) = (columns.first(), columns.last()) else { return };
        self.bytes += token.len() + tag.len();
        if self.bytes > max_bytes {
            self.tokens.clear();
            self.tags.clear();
            self.fail(line, record_too_long(max_bytes));
        } else {
            self.tokens.push((*token).to_string());
            self.tags.push((*tag).to_string());
        }
    }

    /// Keeps the first error.
    fn fail(&mut self, line: u64, error: Diagnostic) {
        self.first_line.get_or_insert(line);
        self.error.get_or_insert(error);
    }

    fn into_object(self) -> Option<SourceObject<'static>> {
        let line = self.first_line?;
        let text = match self.error {
            Some(error) => Err(error),
            None => Ok(Cow::Owned(json!({"tokens": self.tokens, "tags": self.tags}).to_string())),
        };
        Some(SourceObject { line, text })
    }
}

fn columns_not_read(columns: &[&str]) -> Diagnostic {
    let message = format!(
        "a line has {} columns: the first is read as the token and the last as its tag; those between, here {}, are not read",
        columns.len() + 2,
        quote_list(columns.iter().copied())
    );
    Diagnostic::new(diagnostics::NOT_READ, message)
}

fn single_column(line: u64, text: &str) -> Diagnostic {
    let message = format!(
        "line {line} of the sentence has no tag: {}. Every line needs a token, a tab or a space, and a tag; a blank line ends a sentence",
        quote(text)
    );
    Diagnostic::new(diagnostics::UNREADABLE_RECORD, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    type Objects = Vec<(u64, Result<String, String>)>;

    fn objects(text: &str) -> (Objects, Vec<String>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut sentences = Sentences::new(LineSource::new(file).unwrap(), 60);
        let mut objects = Vec::new();
        while let Some(object) = sentences.next_object().unwrap() {
            objects.push((object.line, object.text.map(Cow::into_owned).map_err(|diagnostic| diagnostic.message)));
        }
        (
            objects,
            sentences
                .take_warnings()
                .into_iter()
                .map(|(line, warning)| format!("{line}: {}", warning.message))
                .collect(),
        )
    }

    #[test]
    fn sentences_end_at_blank_lines_and_documents() {
        let text = "-DOCSTART- -X- O O\n\nBook NN B-NP O\nRiga NN B-NP B-city\n\n\n# a note\nIs VB B-VP O\n-DOCSTART- -X- O O\nIt PR B-NP O";
        let (objects, warnings) = objects(text);
        let expected = [
            (3, r#"{"tokens":["Book","Riga"],"tags":["O","B-city"]}"#),
            (8, r#"{"tokens":["Is"],"tags":["O"]}"#),
            (10, r#"{"tokens":["It"],"tags":["O"]}"#),
        ];
        assert_eq!(objects, expected.map(|(line, text)| (line, Ok(text.to_string()))));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("3: ") && warnings[0].contains("\"NN\", \"B-NP\""), "{warnings:?}");
    }

    #[test]
    fn header_is_skipped_and_bad_lines_are_errors_of_their_sentence() {
        let long = "a O\n".repeat(40);
        let (objects, warnings) = objects(&format!("word\ttag\n\"\tO\n#5\tO\n\nalone\nb\tO\n\n{long}\nc\tO\n"));
        assert_eq!(objects[0], (2, Ok(r##"{"tokens":["\"","#5"],"tags":["O","O"]}"##.to_string())));
        assert!(objects[1].0 == 5 && objects[1].1.as_ref().unwrap_err().contains("line 5"));
        assert!(objects[2].0 == 8 && objects[2].1.as_ref().unwrap_err().contains("60 bytes"));
        assert_eq!((objects[3].0, objects.len(), warnings.len()), (49, 4, 0));
    }
}
