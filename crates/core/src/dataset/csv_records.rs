//! Records of a delimited file, and recovery after a record that is malformed or too long.

use super::csv_splitter::{EofState, FeedResult, RecordSplitter};
use super::line_source::{LineSource, Position};
use std::io;

/// Reads records one by one into one buffer.
pub(super) struct RecordReader {
    pub source: LineSource,
    pub splitter: RecordSplitter,
    numbering: Numbering,
    buffer: Vec<u8>,
    max_record_bytes: usize,
    /// Bytes that may still be read again after malformed records. It keeps the time linear in the file's size.
    reread_budget: u64,
}

/// Meaning of a record's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// Line of the file where the record begins.
    Lines,
    /// Position of the record in a file whose records were rows of a sheet.
    Records { read: u64 },
}

/// Kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordOutcome {
    /// Record with this many fields, in [`RecordReader::record_bytes`] and `splitter`.
    Record(usize),
    TooLong,
    Malformed(QuoteError),
    Eof,
}

/// Error in the quotes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuoteError {
    /// Text follows a closing quote in this line.
    TextAfterClosingQuote(u64),
    Unterminated,
}

/// Result of reading one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordEvent {
    /// Line where the record begins.
    pub line: u64,
    /// Line where it ends.
    pub last_line: u64,
    pub outcome: RecordOutcome,
    /// Start of the record's second line, or its end if it has only one.
    second_line: Position,
}

impl RecordReader {
    pub fn new(source: LineSource, splitter: RecordSplitter, max_record_bytes: usize, reread_budget: u64) -> Self {
        Self { source, splitter, numbering: Numbering::Lines, buffer: Vec::new(), max_record_bytes, reread_budget }
    }

    /// Numbers the records instead of their lines, blank ones included.
    pub fn with_record_numbers(mut self) -> Self {
        self.numbering = Numbering::Records { read: 0 };
        self
    }

    /// Bytes of the last record, with its line ending.
    pub fn record_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads the next record that is not a blank line.
    pub fn next_record(&mut self) -> io::Result<RecordEvent> {
        loop {
            let record = self.read_raw_record()?;
            if !matches!(record.outcome, RecordOutcome::Record(_)) || !self.splitter.is_blank(&self.buffer) {
                return Ok(record);
            }
        }
    }

    /// Seeks back to the second line of a malformed record, where the next record begins if the first line lacks a closing
    /// quote. Returns the end of the malformed part if that is a guess: reading continues there if the guess proves wrong.
    /// Does not seek if the error is in the first line or the budget for repeated reading is exhausted.
    pub fn rewind_to_second_line(
        &mut self,
        record: RecordEvent,
        quote_error: QuoteError,
    ) -> io::Result<Option<Position>> {
        let end_position = self.source.position();
        let reread_bytes = end_position.offset.saturating_sub(record.second_line.offset);
        if reread_bytes == 0 || reread_bytes > self.reread_budget {
            return Ok(None);
        }
        self.reread_budget -= reread_bytes;
        self.source.seek(record.second_line)?;
        Ok(match quote_error {
            QuoteError::TextAfterClosingQuote(_) => Some(end_position),
            QuoteError::Unterminated => None,
        })
    }

    fn read_raw_record(&mut self) -> io::Result<RecordEvent> {
        self.buffer.clear();
        self.splitter.reset();
        let line = self.source.position().line;
        let mut second_line = None;
        let mut is_oversized = false;
        let outcome = loop {
            let chunk_start = self.buffer.len();
            if self.source.read_chunk(&mut self.buffer)? == 0 {
                break match self.splitter.finish_at_eof(&self.buffer) {
                    EofState::UnterminatedQuote => RecordOutcome::Malformed(QuoteError::Unterminated),
                    EofState::Complete if second_line.is_none() && self.buffer.is_empty() && !is_oversized => {
                        RecordOutcome::Eof
                    }
                    EofState::Complete => self.completed_record(is_oversized),
                };
            }
            let position = self.source.position();
            if position.line > line {
                second_line.get_or_insert(position);
            }
            match self.splitter.feed(&self.buffer, chunk_start) {
                FeedResult::RecordEnd => break self.completed_record(is_oversized),
                FeedResult::TextAfterQuote(_) => {
                    break RecordOutcome::Malformed(self.skip_malformed_line(chunk_start)?);
                }
                FeedResult::NeedMore => {}
            }
            if self.is_too_long() {
                is_oversized = true;
                self.buffer.clear();
                self.splitter.discard_fields();
            }
        };
        let position = self.source.position();
        let last_line = (position.line - u64::from(self.buffer.ends_with(b"\n"))).max(line);
        let second_line = second_line.unwrap_or(position);
        match &mut self.numbering {
            Numbering::Lines => Ok(RecordEvent { line, last_line, outcome, second_line }),
            Numbering::Records { read } => {
                *read += 1;
                Ok(RecordEvent { line: *read, last_line: *read, outcome, second_line })
            }
        }
    }

    fn completed_record(&self, is_oversized: bool) -> RecordOutcome {
        if is_oversized || self.is_too_long() {
            RecordOutcome::TooLong
        } else {
            RecordOutcome::Record(self.splitter.field_count())
        }
    }

    fn is_too_long(&self) -> bool {
        super::line_source::trim_line_ending(&self.buffer).len() > self.max_record_bytes
    }

    /// Reads to the end of the line in which text follows a closing quote.
    fn skip_malformed_line(&mut self, chunk_start: usize) -> io::Result<QuoteError> {
        let has_whole_line = self.buffer[chunk_start..].ends_with(b"\n");
        if !has_whole_line {
            let quote_line = self.source.position().line;
            self.source.skip_line()?;
            return Ok(QuoteError::TextAfterClosingQuote(quote_line));
        }
        Ok(QuoteError::TextAfterClosingQuote(self.source.position().line - 1))
    }
}
