//! JSON lines: one object per line.

use super::object_source::{ObjectSource, SourceObject};
use super::text_lines::{TextLine, TextLines};
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::line_source::LineSource;
use std::borrow::Cow;
use std::io;

pub(super) struct JsonLines {
    lines: TextLines,
    /// First line that ends with a comma.
    first_trailing_comma: Option<u64>,
    warnings: Vec<(u64, Diagnostic)>,
}

impl JsonLines {
    pub fn new(source: LineSource, max_line_bytes: usize) -> Self {
        Self { lines: TextLines::new(source, max_line_bytes), first_trailing_comma: None, warnings: Vec::new() }
    }
}

impl ObjectSource for JsonLines {
    fn next_object(&mut self) -> io::Result<Option<SourceObject<'_>>> {
        let Some(TextLine { number: line, text }) = self.lines.next_visible_line()? else { return Ok(None) };
        let Ok(with_comma) = &text else { return Ok(Some(SourceObject { line, text: text.map(Cow::Borrowed) })) };
        let without_comma = with_comma.trim_end().strip_suffix(',').filter(|object| object.ends_with('}'));
        if without_comma.is_some() && self.first_trailing_comma.is_none() {
            self.first_trailing_comma = Some(line);
            self.warnings.push((line, trailing_comma()));
        }
        let text = without_comma.unwrap_or(with_comma);
        Ok(Some(SourceObject { line, text: Ok(Cow::Borrowed(text)) }))
    }

    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        std::mem::take(&mut self.warnings)
    }
}

fn trailing_comma() -> Diagnostic {
    let message =
        "this line and perhaps later ones end with a comma, which JSON lines do not have: they are read without it";
    Diagnostic::new(diagnostics::TRAILING_COMMA, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn commas_at_the_ends_of_lines_are_left_out_with_one_warning() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"{\"a\": 1},\n\n{\"a\": 2}, \r\n{\"a\": 3}").unwrap();
        let mut lines = JsonLines::new(LineSource::new(file).unwrap(), 100);
        let mut texts = Vec::new();
        while let Some(object) = lines.next_object().unwrap() {
            texts.push((object.line, object.text.unwrap().into_owned()));
        }
        let expected = [(1, "{\"a\": 1}"), (3, "{\"a\": 2}"), (4, "{\"a\": 3}")];
        assert_eq!(texts, expected.map(|(line, text)| (line, text.to_string())));
        let warnings = lines.take_warnings();
        assert_eq!(
            warnings.iter().map(|(line, warning)| (*line, warning.code)).collect::<Vec<_>>(),
            [(1, "trailing_comma")]
        );
    }
}
