//! Where the fields of a delimited record are, and where the record ends (RFC 4180).
//!
//! Stricter than most readers about quotes: one that never closes, or text after a closing one, is a fault and not a
//! guess. A quote inside a field that does not begin with one is taken as it is. Does not know files or lines.

use std::borrow::Cow;

/// Fields found so far and the state between two pieces of a record.
#[derive(Debug)]
pub(super) struct Splitter {
    separator: u8,
    state: State,
    start: usize,
    doubled: bool,
    fields: Vec<Field>,
    keep: Keep,
}

/// The bytes of a field's content within the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    start: usize,
    end: usize,
    quoting: Quoting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoting {
    Plain,
    Quoted,
    /// With doubled quotes inside, which stand for single ones.
    Doubled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote inside a quoted field: it was the closing one, or the first of two.
    Closed,
    /// After `\r` behind a closing quote.
    ClosedReturn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Fields,
    /// The record's bytes are gone; only its end is of interest.
    EndOnly,
}

/// What a piece of a record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The record ended with the piece's last byte.
    End,
    /// Text at this index follows a closing quote.
    Broken(usize),
}

impl Splitter {
    pub fn new(separator: u8) -> Self {
        let (state, keep) = (State::FieldStart, Keep::Fields);
        Self { separator, state, start: 0, doubled: false, fields: Vec::new(), keep }
    }

    pub fn restart(&mut self) {
        self.state = State::FieldStart;
        self.start = 0;
        self.doubled = false;
        self.fields.clear();
        self.keep = Keep::Fields;
    }

    /// The record is too long to be kept: from here on only its end is looked for.
    pub fn forget_fields(&mut self) {
        self.fields.clear();
        self.keep = Keep::EndOnly;
    }

    /// Reads on in `record` at `from`. A piece never goes beyond a line's end.
    pub fn feed(&mut self, record: &[u8], from: usize) -> Step {
        for (index, byte) in record.iter().copied().enumerate().skip(from) {
            let separator = byte == self.separator;
            self.state = match (self.state, byte) {
                (State::Quoted, b'"') => State::Closed,
                (State::Quoted, _) => State::Quoted,
                (State::Closed, b'"') => {
                    self.doubled = true;
                    State::Quoted
                }
                (State::Closed, _) if separator => self.next_field(index, 1),
                (State::Closed, b'\r') => State::ClosedReturn,
                (State::Closed, b'\n') => return self.end(index, 1),
                (State::ClosedReturn, b'\n') => return self.end(index, 2),
                (State::Closed | State::ClosedReturn, _) => return Step::Broken(index),
                (State::FieldStart, b'"') => {
                    self.start = index + 1;
                    State::Quoted
                }
                (State::FieldStart | State::Plain, _) if separator => self.next_field(index, 0),
                (State::FieldStart | State::Plain, b'\n') => {
                    let carriage_return = usize::from(index > self.start && record[index - 1] == b'\r');
                    return self.end(index, carriage_return);
                }
                (State::FieldStart | State::Plain, _) => State::Plain,
            };
        }
        Step::More
    }

    /// The file ended. Answers whether the record ended well, or within quotes.
    pub fn finish(&mut self, record: &[u8]) -> Ending {
        let behind = match self.state {
            State::Quoted => return Ending::Unclosed,
            State::Closed => 1,
            State::ClosedReturn => 2,
            State::FieldStart | State::Plain => usize::from(record.ends_with(b"\r") && record.len() > self.start),
        };
        self.end(record.len(), behind);
        Ending::Whole
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// The content of every field, as it was meant; `record` is what was fed.
    pub fn values<'a>(&self, record: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.fields.iter().map(move |field| field.value(record))
    }

    /// The content of one field; empty where there is none.
    pub fn value<'a>(&self, record: &'a str, index: usize) -> Cow<'a, str> {
        self.fields.get(index).map_or(Cow::Borrowed(""), |field| field.value(record))
    }

    /// Whether the record is a line of white space and no more.
    pub fn is_blank(&self, record: &[u8]) -> bool {
        match self.fields.as_slice() {
            [field] => field.quoting == Quoting::Plain && record[field.start..field.end].trim_ascii().is_empty(),
            _ => false,
        }
    }

    /// Ends a field `behind` bytes before `index`, where a separator stands, and begins the next.
    fn next_field(&mut self, index: usize, behind: usize) -> State {
        self.push(index, behind);
        self.start = index + 1;
        State::FieldStart
    }

    fn end(&mut self, index: usize, behind: usize) -> Step {
        self.push(index, behind);
        Step::End
    }

    fn push(&mut self, index: usize, behind: usize) {
        if self.keep == Keep::EndOnly {
            return;
        }
        let quoting = match (self.state, self.doubled) {
            (State::Closed | State::ClosedReturn, true) => Quoting::Doubled,
            (State::Closed | State::ClosedReturn, false) => Quoting::Quoted,
            _ => Quoting::Plain,
        };
        self.fields.push(Field { start: self.start, end: index - behind, quoting });
        self.doubled = false;
    }
}

/// How a record stands at the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Whole,
    Unclosed,
}

impl Field {
    fn value(self, record: &str) -> Cow<'_, str> {
        let content = &record[self.start..self.end];
        match self.quoting {
            Quoting::Doubled => Cow::Owned(content.replace("\"\"", "\"")),
            Quoting::Plain | Quoting::Quoted => Cow::Borrowed(content),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(record: &str) -> Vec<String> {
        let mut splitter = Splitter::new(b',');
        if splitter.feed(record.as_bytes(), 0) == Step::More {
            assert_eq!(splitter.finish(record.as_bytes()), Ending::Whole);
        }
        splitter.values(record).map(Cow::into_owned).collect()
    }

    #[test]
    fn fields_are_what_was_meant() {
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
    fn a_record_goes_on_behind_a_quoted_line_end() {
        let mut splitter = Splitter::new(b'\t');
        assert_eq!(splitter.feed(b"\"a\n", 0), Step::More);
        assert_eq!(splitter.feed(b"\"a\nb\"\tc\n", 3), Step::End);
        assert_eq!(splitter.value("\"a\nb\"\tc\n", 0), "a\nb");
        assert_eq!(splitter.value("\"a\nb\"\tc\n", 1), "c");
    }

    #[test]
    fn text_behind_a_closing_quote_is_broken() {
        assert_eq!(Splitter::new(b',').feed(b"\"a\" b,c\n", 0), Step::Broken(3));
        assert_eq!(Splitter::new(b',').feed(b"\"a\"\rb\n", 0), Step::Broken(4));
    }

    #[test]
    fn a_quote_that_never_closes_is_seen_at_the_end() {
        let mut splitter = Splitter::new(b',');
        assert_eq!(splitter.feed(b"\"a,b\n", 0), Step::More);
        assert_eq!(splitter.finish(b"\"a,b\n"), Ending::Unclosed);
    }

    #[test]
    fn the_end_of_a_forgotten_record_is_found() {
        let mut splitter = Splitter::new(b',');
        assert_eq!(splitter.feed(b"\"a,b", 0), Step::More);
        splitter.forget_fields();
        assert_eq!(splitter.feed(b"\",c\n", 0), Step::End);
        assert_eq!(splitter.len(), 0);
    }
}
