//! fastText: a text and its labels `__label__x` per line.

use super::object_source::{ObjectSource, SourceObject};
use super::text_lines::TextLines;
use crate::dataset::content::Content;
use crate::dataset::detect::FASTTEXT_LABEL;
use crate::dataset::diagnostics::{self, Diagnostic};
use serde_json::json;
use std::borrow::Cow;
use std::io;

pub(super) struct LabelledLines {
    lines: TextLines,
    target: Target,
}

/// Field of the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Label,
    /// A line of the file has several labels or none.
    Labels,
}

impl LabelledLines {
    /// Reads the file once to find out whether every line has one label.
    pub fn open(content: &Content, max_line_bytes: usize) -> io::Result<Self> {
        let mut lines = TextLines::new(content.lines()?, max_line_bytes);
        let mut target = Target::Label;
        while let Some(line) = lines.next_visible_line()? {
            if let Ok(text) = line.text
                && split_labels(text).0.len() != 1
            {
                target = Target::Labels;
                break;
            }
        }
        Ok(Self { lines: TextLines::new(content.lines()?, max_line_bytes), target })
    }
}

impl ObjectSource for LabelledLines {
    fn next_object(&mut self) -> io::Result<Option<SourceObject<'_>>> {
        let Some(line) = self.lines.next_visible_line()? else { return Ok(None) };
        let target = self.target;
        let text = line.text.and_then(|text| match (split_labels(text), target) {
            ((labels, text), Target::Labels) => Ok(Cow::Owned(json!({"text": text, "labels": labels}).to_string())),
            ((labels, text), Target::Label) => match labels.first() {
                Some(label) => Ok(Cow::Owned(json!({"text": text, "label": label}).to_string())),
                None => Err(no_label()),
            },
        });
        Ok(Some(SourceObject { line: line.number, text }))
    }
}

/// Labels at the start and at the end of a line, and the text between.
fn split_labels(line: &str) -> (Vec<&str>, &str) {
    let mut text = line.trim();
    let mut labels = Vec::new();
    while let Some(rest) = text.strip_prefix(FASTTEXT_LABEL) {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        labels.push(&rest[..end]);
        text = rest[end..].trim_start();
    }
    let leading = labels.len();
    while let Some(start) =
        text.rfind(char::is_whitespace).map(|at| at + text[at..].chars().next().map_or(1, char::len_utf8))
    {
        let Some(label) = text[start..].strip_prefix(FASTTEXT_LABEL) else { break };
        labels.push(label);
        text = text[..start].trim_end();
    }
    // The last label of the line was found first.
    labels[leading..].reverse();
    (labels, text)
}

fn no_label() -> Diagnostic {
    Diagnostic::new(diagnostics::EMPTY_LABEL, "the line has no label: begin it with `__label__` and the label's name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::format::Format;
    use crate::dataset::options::Options;
    use std::io::Write;

    fn objects(text: &str) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let content = Content::open(file.path(), &Options::new(Format::Fasttext), 1 << 20).unwrap().unwrap();
        let mut lines = LabelledLines::open(&content, 1000).unwrap();
        let mut objects = Vec::new();
        while let Some(object) = lines.next_object().unwrap() {
            objects.push(format!("{} {}", object.line, object.text.unwrap()));
        }
        objects
    }

    #[test]
    fn one_label_per_line_is_a_label_and_more_are_labels() {
        let expected = [r#"1 {"text":"It is good.","label":"pos"}"#, r#"3 {"text":"Bad.","label":"neg"}"#];
        assert_eq!(objects("__label__pos It is good.\n\nBad. __label__neg\n"), expected);
        let expected = [r#"1 {"text":"a b","labels":["x","y"]}"#, r#"2 {"text":"c","labels":[]}"#];
        assert_eq!(objects("__label__x a b __label__y\nc\n"), expected);
    }
    #[test]
    fn labels_are_in_the_order_of_the_line() {
        assert_eq!(split_labels("__label__a  x y __label__b __label__c"), (vec!["a", "b", "c"], "x y"));
        assert_eq!(split_labels("__label__a __label__b"), (vec!["a", "b"], ""));
        let labels = " __label__x".repeat(100_000);
        assert_eq!(split_labels(&format!("a{labels} __label__y")).0[99_999..], ["x", "y"]);
    }
}
