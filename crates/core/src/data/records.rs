//! The records of a delimited file: where each begins, and going on behind one that is broken or too long.
//!
//! Does not know what the fields are for.

use super::quotes::{Ending, Splitter, Step};
use super::source::{Place, Source};
use std::io;

/// Reads one record after another into the same buffer.
pub(super) struct Records {
    pub source: Source,
    pub splitter: Splitter,
    raw: Vec<u8>,
    limit: usize,
    /// How many bytes may still be read a second time, so that no file, however broken, takes long.
    allowance: u64,
}

/// What the file holds next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A record with this many fields; [`Records::raw`] and `splitter` hold it.
    Record(usize),
    TooLong,
    Broken(Broken),
    End,
}

/// A broken quote, and how it was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Text follows a closing quote on this line.
    TextBehind(u64),
    NeverClosed,
}

/// A record, or what stands in its place, and the line where it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub line: u64,
    pub next: Next,
    /// The start of the record's second line.
    second_line: Place,
}

impl Records {
    pub fn new(source: Source, separator: u8, limit: usize, allowance: u64) -> Self {
        Self { source, splitter: Splitter::new(separator), raw: Vec::new(), limit, allowance }
    }

    /// The bytes of the record just read, with its line's end.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Reads up to the end of the next record that is not a blank line.
    pub fn read(&mut self) -> io::Result<Found> {
        loop {
            let found = self.read_one()?;
            if !matches!(found.next, Next::Record(_)) || !self.splitter.is_blank(&self.raw) {
                return Ok(found);
            }
        }
    }

    /// After a broken record: goes back to its second line, where the next record begins if a closing quote was
    /// forgotten on the first. Answers the place behind the broken part if that was a guess. Stays where it is when the
    /// fault was seen on the first line, or too much was read twice already.
    pub fn retreat(&mut self, found: Found, broken: Broken) -> io::Result<Option<Place>> {
        let behind = self.source.place();
        let again = behind.offset.saturating_sub(found.second_line.offset);
        if again == 0 || again > self.allowance {
            return Ok(None);
        }
        self.allowance -= again;
        self.source.go_to(found.second_line)?;
        Ok(match broken {
            Broken::TextBehind(_) => Some(behind),
            Broken::NeverClosed => None,
        })
    }

    fn read_one(&mut self) -> io::Result<Found> {
        self.raw.clear();
        self.splitter.restart();
        let line = self.source.place().line;
        let mut second_line = None;
        let mut too_long = false;
        let next = loop {
            let from = self.raw.len();
            if self.source.piece(&mut self.raw)? == 0 {
                break match self.splitter.finish(&self.raw) {
                    Ending::Unclosed => Next::Broken(Broken::NeverClosed),
                    Ending::Whole if second_line.is_none() && self.raw.is_empty() && !too_long => Next::End,
                    Ending::Whole => self.ended(too_long),
                };
            }
            let here = self.source.place();
            if here.line > line {
                second_line.get_or_insert(here);
            }
            match self.splitter.feed(&self.raw, from) {
                Step::End => break self.ended(too_long),
                Step::Broken(_) => break Next::Broken(self.broken_here(from)?),
                Step::More => {}
            }
            if self.is_too_long() {
                too_long = true;
                self.raw.clear();
                self.splitter.forget_fields();
            }
        };
        let second_line = second_line.unwrap_or_else(|| self.source.place());
        Ok(Found { line, next, second_line })
    }

    fn ended(&self, too_long: bool) -> Next {
        if too_long || self.is_too_long() { Next::TooLong } else { Next::Record(self.splitter.len()) }
    }

    fn is_too_long(&self) -> bool {
        super::source::without_end(&self.raw).len() > self.limit
    }

    /// Reads to the end of the line on which text follows a closing quote.
    fn broken_here(&mut self, from: usize) -> io::Result<Broken> {
        let whole_line = self.raw[from..].ends_with(b"\n");
        if !whole_line {
            let line = self.source.place().line;
            self.source.skip_line()?;
            return Ok(Broken::TextBehind(line));
        }
        Ok(Broken::TextBehind(self.source.place().line - 1))
    }
}
