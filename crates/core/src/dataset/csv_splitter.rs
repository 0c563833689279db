//! State machine that splits a delimited record into fields (RFC 4180).
//!
//! It is stricter about quotes than the `csv` crate: an unterminated quote and text after a closing quote are errors with a
//! position, which `csv-core` accepts silently. A quote inside an unquoted field is ordinary text.

use super::format::Quoting;
use std::borrow::Cow;

/// Fields of the current record so far, and the state between two chunks of it.
#[derive(Debug)]
pub(super) struct RecordSplitter {
    separator: u8,
    quoting: Quoting,
    state: State,
    field_start: usize,
    has_escaped_quotes: bool,
    fields: Vec<FieldSpan>,
    retention: Retention,
}

/// Byte range of a field's content in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FieldSpan {
    start: usize,
    end: usize,
    form: FieldForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldForm {
    Plain,
    Quoted,
    /// Quoted, with doubled quotes inside.
    Doubled,
    /// Quoted, with backslashes before quotes or backslashes inside.
    Escaped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// After a backslash in a quoted field, where it escapes quotes.
    Escape,
    /// After a quote in a quoted field: the closing quote, or the first of a doubled one.
    AfterQuote,
    /// After a closing quote and `\r`.
    AfterQuoteCr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retention {
    Fields,
    /// Fields are not kept, because the record is too long; only its end is searched.
    RecordEndOnly,
}

/// Result of feeding one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedResult {
    NeedMore,
    /// The record ends with the last byte of the chunk.
    RecordEnd,
    /// Text follows a closing quote, at this index of the record.
    TextAfterQuote(usize),
}

impl RecordSplitter {
    pub fn new(separator: u8, quoting: Quoting) -> Self {
        let (state, retention) = (State::FieldStart, Retention::Fields);
        Self { separator, quoting, state, field_start: 0, has_escaped_quotes: false, fields: Vec::new(), retention }
    }

    pub fn reset(&mut self) {
        self.state = State::FieldStart;
        self.field_start = 0;
        self.has_escaped_quotes = false;
        self.fields.clear();
        self.retention = Retention::Fields;
    }

    /// Drops the fields of a record that is too long. After that only its end is searched.
    pub fn discard_fields(&mut self) {
        self.fields.clear();
        self.retention = Retention::RecordEndOnly;
    }

    /// Processes the bytes of `record` from `start` on. A chunk ends at a line ending at the latest.
    pub fn feed(&mut self, record: &[u8], start: usize) -> FeedResult {
        for (index, byte) in record.iter().copied().enumerate().skip(start) {
            let is_separator = byte == self.separator;
            self.state = match (self.state, byte) {
                (State::Quoted, b'"') => State::AfterQuote,
                (State::Quoted, b'\\') if self.quoting == Quoting::Backslash => {
                    self.has_escaped_quotes = true;
                    State::Escape
                }
                (State::Quoted | State::Escape, _) => State::Quoted,
                (State::AfterQuote, b'"') if self.quoting == Quoting::Doubled => {
                    self.has_escaped_quotes = true;
                    State::Quoted
                }
                (State::AfterQuote, _) if is_separator => self.end_field(index, 1),
                (State::AfterQuote, b'\r') => State::AfterQuoteCr,
                (State::AfterQuote, b'\n') => return self.end_record(index, 1),
                (State::AfterQuoteCr, b'\n') => return self.end_record(index, 2),
                (State::AfterQuote | State::AfterQuoteCr, _) => return FeedResult::TextAfterQuote(index),
                (State::FieldStart, b'"') if self.quoting != Quoting::None => {
                    self.field_start = index + 1;
                    State::Quoted
                }
                (State::FieldStart | State::Plain, _) if is_separator => self.end_field(index, 0),
                (State::FieldStart | State::Plain, b'\n') => {
                    let cr_bytes = usize::from(index > self.field_start && record[index - 1] == b'\r');
                    return self.end_record(index, cr_bytes);
                }
                (State::FieldStart | State::Plain, _) => State::Plain,
            };
        }
        FeedResult::NeedMore
    }

    /// Ends the record at the end of the file.
    pub fn finish_at_eof(&mut self, record: &[u8]) -> EofState {
        let delimiter_bytes = match self.state {
            State::Quoted | State::Escape => return EofState::UnterminatedQuote,
            State::AfterQuote => 1,
            State::AfterQuoteCr => 2,
            State::FieldStart | State::Plain => usize::from(record.ends_with(b"\r") && record.len() > self.field_start),
        };
        self.end_record(record.len(), delimiter_bytes);
        EofState::Complete
    }

    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// Number of fields in quotes.
    pub fn quoted_field_count(&self) -> usize {
        self.fields.iter().filter(|field| field.form != FieldForm::Plain).count()
    }

    /// Unescaped content of every field; `record` must be the bytes that were fed.
    pub fn field_values<'a>(&self, record: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.fields.iter().map(move |field| field.unescaped(record))
    }

    /// Unescaped content of one field; empty if the record has no such field.
    pub fn field_value<'a>(&self, record: &'a str, index: usize) -> Cow<'a, str> {
        self.fields.get(index).map_or(Cow::Borrowed(""), |field| field.unescaped(record))
    }

    /// Whether the record is a blank line.
    pub fn is_blank(&self, record: &[u8]) -> bool {
        match self.fields.as_slice() {
            [field] => field.form == FieldForm::Plain && record[field.start..field.end].trim_ascii().is_empty(),
            _ => false,
        }
    }

    /// Ends a field `delimiter_bytes` before the separator at `index`, and begins the next.
    fn end_field(&mut self, index: usize, delimiter_bytes: usize) -> State {
        self.push_field(index, delimiter_bytes);
        self.field_start = index + 1;
        State::FieldStart
    }

    fn end_record(&mut self, index: usize, delimiter_bytes: usize) -> FeedResult {
        self.push_field(index, delimiter_bytes);
        FeedResult::RecordEnd
    }

    fn push_field(&mut self, index: usize, delimiter_bytes: usize) {
        if self.retention == Retention::RecordEndOnly {
            return;
        }
        let form = match (self.state, self.has_escaped_quotes) {
            (State::AfterQuote | State::AfterQuoteCr, true) if self.quoting == Quoting::Backslash => FieldForm::Escaped,
            (State::AfterQuote | State::AfterQuoteCr, true) => FieldForm::Doubled,
            (State::AfterQuote | State::AfterQuoteCr, false) => FieldForm::Quoted,
            (State::FieldStart | State::Plain | State::Quoted | State::Escape, _) => FieldForm::Plain,
        };
        self.fields.push(FieldSpan { start: self.field_start, end: index - delimiter_bytes, form });
        self.has_escaped_quotes = false;
    }
}

/// Whether the last record is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EofState {
    Complete,
    UnterminatedQuote,
}

impl FieldSpan {
    fn unescaped(self, record: &str) -> Cow<'_, str> {
        let raw_content = &record[self.start..self.end];
        match self.form {
            FieldForm::Doubled => Cow::Owned(raw_content.replace("\"\"", "\"")),
            FieldForm::Escaped => Cow::Owned(without_escapes(raw_content)),
            FieldForm::Plain | FieldForm::Quoted => Cow::Borrowed(raw_content),
        }
    }
}

/// Removes backslashes before quotes and backslashes; other backslashes are part of the text.
fn without_escapes(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        unescaped.push_str(&rest[..at]);
        let escaped = rest[at + 1..].chars().next();
        match escaped {
            Some(character @ ('"' | '\\')) => unescaped.push(character),
            Some(character) => unescaped.extend(['\\', character]),
            None => unescaped.push('\\'),
        }
        rest = &rest[at + 1 + escaped.map_or(0, char::len_utf8)..];
    }
    unescaped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(record: &str) -> Vec<String> {
        let mut splitter = RecordSplitter::new(b',', Quoting::Doubled);
        if splitter.feed(record.as_bytes(), 0) == FeedResult::NeedMore {
            assert_eq!(splitter.finish_at_eof(record.as_bytes()), EofState::Complete);
        }
        splitter.field_values(record).map(Cow::into_owned).collect()
    }

    #[test]
    fn splits_and_unescapes_fields() {
        assert_eq!(split("a,b\r\n"), ["a", "b"]);
        assert_eq!(split("a,\r\n"), ["a", ""]);
        assert_eq!(split(",\n"), ["", ""]);
        assert_eq!(split("\"a \"\"b\"\"\",c"), ["a \"b\"", "c"]);
        assert_eq!(split("\"a,b\",\"\"\r\n"), ["a,b", ""]);
        assert_eq!(split("\"\"\"\"\r"), ["\""]);
        assert_eq!(split("5\" pipe,x\r"), ["5\" pipe", "x"]);
        assert_eq!(split("a\rb,c"), ["a\rb", "c"]);
        assert_eq!(split("\r\n"), [""]);
    }

    #[test]
    fn quotes_may_be_escaped_or_ordinary() {
        let split_as = |quoting, record: &str| {
            let mut splitter = RecordSplitter::new(b',', quoting);
            assert_eq!(splitter.feed(record.as_bytes(), 0), FeedResult::RecordEnd);
            splitter.field_values(record).map(Cow::into_owned).collect::<Vec<_>>()
        };
        assert_eq!(split_as(Quoting::Backslash, "\"a \\\"b\\\", \\\\ \\n\",c\n"), ["a \"b\", \\ \\n", "c"]);
        assert_eq!(split_as(Quoting::None, "\"a,b\"\n"), ["\"a", "b\""]);
    }

    #[test]
    fn quoted_field_may_span_lines() {
        let mut splitter = RecordSplitter::new(b'\t', Quoting::Doubled);
        assert_eq!(splitter.feed(b"\"a\n", 0), FeedResult::NeedMore);
        assert_eq!(splitter.feed(b"\"a\nb\"\tc\n", 3), FeedResult::RecordEnd);
        assert_eq!(splitter.field_value("\"a\nb\"\tc\n", 0), "a\nb");
        assert_eq!(splitter.field_value("\"a\nb\"\tc\n", 1), "c");
    }

    #[test]
    fn text_after_closing_quote_is_an_error() {
        assert_eq!(RecordSplitter::new(b',', Quoting::Doubled).feed(b"\"a\" b,c\n", 0), FeedResult::TextAfterQuote(3));
        assert_eq!(RecordSplitter::new(b',', Quoting::Doubled).feed(b"\"a\"\rb\n", 0), FeedResult::TextAfterQuote(4));
    }

    #[test]
    fn unterminated_quote_is_reported_at_eof() {
        let mut splitter = RecordSplitter::new(b',', Quoting::Doubled);
        assert_eq!(splitter.feed(b"\"a,b\n", 0), FeedResult::NeedMore);
        assert_eq!(splitter.finish_at_eof(b"\"a,b\n"), EofState::UnterminatedQuote);
    }

    #[test]
    fn finds_record_end_after_discarding_fields() {
        let mut splitter = RecordSplitter::new(b',', Quoting::Doubled);
        assert_eq!(splitter.feed(b"\"a,b", 0), FeedResult::NeedMore);
        splitter.discard_fields();
        assert_eq!(splitter.feed(b"\",c\n", 0), FeedResult::RecordEnd);
        assert_eq!(splitter.field_count(), 0);
    }
}
