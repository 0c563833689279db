//! Reader of CSV and TSV files: header, rows, and errors of quotes and field counts.

use super::csv_records::{QuoteError, RecordEvent, RecordOutcome, RecordReader};
use super::csv_splitter::RecordSplitter;
use super::detect::skip_separator_line;
use super::diagnostics::{self, Diagnostic, quote};
use super::format::{Format, Quoting, Separator};
use super::line_source::{LineSource, Position};
use super::options::{Limits, Options};
use super::record::Record;
use super::row::{OpenResult, ParsedRow, RecordParser, RowReader, decode_utf8, record_too_long};
use std::io;

pub(super) struct TableReader {
    records: RecordReader,
    parser: Box<dyn RecordParser>,
    /// Index and name of every column that the parser needs.
    columns: Vec<(usize, String)>,
    column_count: usize,
    max_record_bytes: usize,
    /// After a malformed record whose end was guessed: where to continue if the guess proves wrong.
    resume_position: Option<Position>,
    /// Whether a record over several lines gets a warning: in files with tabs, quotes are often ordinary characters.
    warns_about_long_records: bool,
    warnings: Vec<(u64, Diagnostic)>,
}

impl TableReader {
    /// Reads the header.
    pub fn open(
        source: LineSource,
        options: &Options,
        mut parser: Box<dyn RecordParser>,
        limits: &Limits,
    ) -> io::Result<OpenResult<Self>> {
        let max_record_bytes = limits.max_record_bytes;
        let mut records = record_reader(source, options, max_record_bytes, limits.max_bytes)?;
        let record = records.next_record()?;
        let header = match read_header(&records, record, max_record_bytes) {
            Ok(header) => header,
            Err(diagnostic) if record.outcome == RecordOutcome::Eof => return Ok(Err((None, diagnostic))),
            Err(diagnostic) => return Ok(Err((Some(record.line), diagnostic))),
        };
        if let Some(name) = duplicate_name(&header) {
            let message = format!("two columns are called {}: give each its own name", quote(name));
            return Ok(Err((Some(record.line), Diagnostic::new(diagnostics::DUPLICATE_COLUMN, message))));
        }
        let needed = parser.set_header(record.line, &header);
        let warnings = (options.quoting == Quoting::None).then(|| (record.line, unquoted()));
        Ok(Ok(Self {
            records,
            parser,
            columns: needed.into_iter().filter_map(|index| Some((index, header.get(index)?.clone()))).collect(),
            column_count: header.len(),
            max_record_bytes,
            resume_position: None,
            warns_about_long_records: options.separator() == Some(Separator::TAB),
            warnings: warnings.into_iter().collect(),
        }))
    }

    /// Reads the next record. If it follows a guess and does not have the header's number of fields, the guess was wrong and
    /// reading continues at `resume_position`.
    fn read_record(&mut self) -> io::Result<RecordEvent> {
        let record = self.records.next_record()?;
        match self.resume_position.take() {
            Some(resume_position) if matches!(record.outcome, RecordOutcome::Record(fields) if fields != self.column_count) =>
            {
                self.records.source.seek(resume_position)?;
                self.records.next_record()
            }
            _ => Ok(record),
        }
    }

    fn parse_row(&mut self, line: u64) -> ParsedRow {
        let splitter = &self.records.splitter;
        let content = match decode_utf8(self.records.record_bytes(), line, &self.records.source) {
            Ok(record) => {
                let cells =
                    self.columns.iter().map(|(index, name)| (name.as_str(), splitter.field_value(record, *index)));
                self.parser.parse(&Record::from_cells(cells))
            }
            Err(diagnostic) => Err(diagnostic.into()),
        };
        ParsedRow { line, content }
    }
}

impl RowReader for TableReader {
    fn next_row(&mut self) -> io::Result<Option<ParsedRow>> {
        let record = self.read_record()?;
        let line = record.line;
        Ok(Some(match record.outcome {
            RecordOutcome::Eof => return Ok(None),
            RecordOutcome::Record(fields) if fields == self.column_count => {
                if self.warns_about_long_records && record.last_line > line {
                    self.warnings.push((line, spans_lines(line, record.last_line)));
                }
                self.parse_row(line)
            }
            RecordOutcome::Record(fields) => ParsedRow::invalid(line, field_count_mismatch(fields, self.column_count)),
            RecordOutcome::TooLong => ParsedRow::invalid(line, record_too_long(self.max_record_bytes)),
            RecordOutcome::Malformed(quote_error) => {
                self.resume_position = self.records.rewind_to_second_line(record, quote_error)?;
                ParsedRow::invalid(line, malformed_quote(line, quote_error))
            }
        }))
    }

    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        std::mem::take(&mut self.warnings)
    }
}

/// Reader of the records after a line `sep=;`.
fn record_reader(
    mut source: LineSource,
    options: &Options,
    max_record_bytes: usize,
    reread_budget: u64,
) -> io::Result<RecordReader> {
    skip_separator_line(&mut source)?;
    let separator = options.separator().unwrap_or(Separator::COMMA);
    let splitter = RecordSplitter::new(separator.byte(), options.quoting);
    let records = RecordReader::new(source, splitter, max_record_bytes, reread_budget);
    Ok(if options.format == Format::Xlsx { records.with_record_numbers() } else { records })
}

/// Names of the columns, from the first record of the file.
fn read_header(
    records: &RecordReader,
    record: RecordEvent,
    max_record_bytes: usize,
) -> Result<Vec<String>, Diagnostic> {
    match record.outcome {
        RecordOutcome::Record(_) => {
            let text = decode_utf8(records.record_bytes(), record.line, &records.source)?;
            Ok(records.splitter.field_values(text).map(|name| name.trim().to_string()).collect())
        }
        RecordOutcome::TooLong => Err(Diagnostic::new(
            diagnostics::INVALID_HEADER,
            format!("the header: {}", record_too_long(max_record_bytes).message),
        )),
        RecordOutcome::Malformed(quote_error) => Err(malformed_quote(record.line, quote_error)),
        RecordOutcome::Eof => {
            let message = "the file is empty: it needs a header that names its columns, and a row for each example";
            Err(Diagnostic::new(diagnostics::NO_USABLE_ROW, message))
        }
    }
}

/// First name that occurs twice in the header. Empty names may repeat, because spreadsheets export empty columns.
fn duplicate_name(header: &[String]) -> Option<&str> {
    let mut names: Vec<&str> = header.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn field_count_mismatch(field_count: usize, column_count: usize) -> Diagnostic {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let advice =
        if field_count > column_count { "; a text that holds the separator must stand in double quotes" } else { "" };
    let message = format!(
        "the row has {field_count} field{}, the header {column_count} column{}{advice}",
        plural(field_count),
        plural(column_count)
    );
    Diagnostic::new(diagnostics::FIELD_COUNT, message)
}

fn unquoted() -> Diagnostic {
    let message = "quotes in this file do not enclose its fields, so they are read as ordinary characters; `\"quoting\": \"doubled\"` \
                   reads fields in quotes";
    Diagnostic::new(diagnostics::UNQUOTED, message)
}

fn spans_lines(line: u64, last_line: u64) -> Diagnostic {
    let message = format!(
        "the record spans the lines {line} to {last_line}, because a quote that opens in it closes there. Where these are rows of their \
         own, `\"quoting\": \"none\"` reads quotes as ordinary characters"
    );
    Diagnostic::new(diagnostics::SPANS_LINES, message)
}

fn malformed_quote(line: u64, quote_error: QuoteError) -> Diagnostic {
    let reason = match quote_error {
        QuoteError::TextAfterClosingQuote(closing_line) if closing_line == line => {
            "text follows a closing quote".to_string()
        }
        QuoteError::TextAfterClosingQuote(closing_line) => {
            format!("a quote that opens here closes on line {closing_line}, where text follows it")
        }
        QuoteError::Unterminated => "a quote that opens here never closes".to_string(),
    };
    let message = format!("{reason}: close the field with a quote, and double every quote inside it");
    Diagnostic::new(diagnostics::BROKEN_QUOTE, message)
}
