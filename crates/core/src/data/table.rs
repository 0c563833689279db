//! A table, comma or tab separated: its header and its rows. What makes a text or a label good is not known here.

use super::columns::{Wanted, advice};
use super::findings::{self, Flaw, listed, quoted};
use super::records::{Broken, Found, Next, Records};
use super::row::{Fields, Row, Rows, as_text, too_long};
use super::source::{Place, Source};
use super::{Opened, Settings};
use crate::task::Shape;
use std::io;

pub(super) struct Table {
    records: Records,
    columns: Columns,
    limit: usize,
    /// After a broken record whose end was guessed: the place to go on from if the guess proves wrong.
    doubt: Option<Place>,
}

/// Where in a record the fields are.
struct Columns {
    text: usize,
    second: Option<usize>,
    target: usize,
    shape: Shape,
    count: usize,
}

impl Table {
    /// Reads the header.
    pub fn open(source: Source, separator: u8, wanted: &Wanted, settings: &Settings) -> io::Result<Opened<Self>> {
        let limit = settings.max_record_bytes;
        let mut records = Records::new(source, separator, limit, settings.max_bytes);
        let found = records.read()?;
        let header = match header(&records, found, limit) {
            Ok(header) => header,
            Err(flaw) if found.next == Next::End => return Ok(Err((None, flaw))),
            Err(flaw) => return Ok(Err((Some(found.line), flaw))),
        };
        Ok(match Columns::find(&header, wanted, separator) {
            Ok(columns) => Ok(Self { records, columns, limit, doubt: None }),
            Err(flaw) => Err((Some(found.line), flaw)),
        })
    }

    /// The next record, after a wrong guess behind a broken quote was put right.
    fn read(&mut self) -> io::Result<Found> {
        let found = self.records.read()?;
        match self.doubt.take() {
            Some(behind) if matches!(found.next, Next::Record(fields) if fields != self.columns.count) => {
                self.records.source.go_to(behind)?;
                self.records.read()
            }
            _ => Ok(found),
        }
    }

    fn row(&self, line: u64) -> Row<'_> {
        let (splitter, columns) = (&self.records.splitter, &self.columns);
        let fields = |record| {
            let second = columns.second.map(|index| splitter.value(record, index));
            let (text, target) = (splitter.value(record, columns.text), splitter.value(record, columns.target));
            Fields::read(columns.shape, text, second, target)
        };
        let content = as_text(self.records.raw(), line, &self.records.source).and_then(fields);
        Row { line, content: content.map_err(|flaw| vec![flaw]) }
    }
}

impl Rows for Table {
    fn next(&mut self) -> io::Result<Option<Row<'_>>> {
        let found = self.read()?;
        let line = found.line;
        Ok(Some(match found.next {
            Next::End => return Ok(None),
            Next::Record(fields) if fields == self.columns.count => self.row(line),
            Next::Record(fields) => Row::bad(line, field_count(fields, self.columns.count)),
            Next::TooLong => Row::bad(line, too_long(self.limit)),
            Next::Broken(broken) => {
                self.doubt = self.records.retreat(found, broken)?;
                Row::bad(line, broken_quote(line, broken))
            }
        }))
    }
}

/// The names of the columns.
fn header(records: &Records, found: Found, limit: usize) -> Result<Vec<String>, Flaw> {
    match found.next {
        Next::Record(_) => {
            let text = as_text(records.raw(), found.line, &records.source)?;
            Ok(records.splitter.values(text).map(|name| name.trim().to_string()).collect())
        }
        Next::TooLong => Err(Flaw::new(findings::INVALID_HEADER, format!("the header: {}", too_long(limit).message))),
        Next::Broken(broken) => Err(broken_quote(found.line, broken)),
        Next::End => {
            let message = "the file is empty: it needs a header that names its columns, and a row for each example";
            Err(Flaw::new(findings::NO_USABLE_ROW, message))
        }
    }
}

impl Columns {
    fn find(header: &[String], wanted: &Wanted, separator: u8) -> Result<Self, Flaw> {
        let place = |name: &str| header.iter().position(|column| column == name);
        let need = |field: &str, name: &str| place(name).ok_or_else(|| missing_column(header, field, name, separator));
        let columns = Self {
            text: need(wanted.shape.text(), &wanted.text)?,
            second: match &wanted.second {
                None => None,
                Some(second) if second.is_needed => Some(need(second.field, &second.name)?),
                Some(second) => place(&second.name),
            },
            target: need(wanted.shape.field(), &wanted.target)?,
            shape: wanted.shape,
            count: header.len(),
        };
        match repeated(header) {
            None => Ok(columns),
            Some(name) => {
                let message = format!("two columns are called {}: give each its own name", quoted(name));
                Err(Flaw::new(findings::DUPLICATE_COLUMN, message))
            }
        }
    }
}

/// A name that stands twice in the header. Spreadsheets leave empty columns behind, so nameless ones may be many.
fn repeated(header: &[String]) -> Option<&str> {
    let mut names: Vec<&str> = header.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn missing_column(header: &[String], field: &str, name: &str, separator: u8) -> Flaw {
    let mut message = format!(
        "the header has no column {}; its columns are {}. {}; where the file has no header, put one in front",
        quoted(name),
        listed(header.iter().map(String::as_str)),
        advice(field)
    );
    if let [only] = header
        && let Some(other) = [',', ';', '\t', '|'].into_iter().find(|other| only.contains(*other))
    {
        let (other, ours) = (other.escape_debug(), char::from(separator).escape_debug());
        message.push_str(&format!(". The columns seem to be separated by '{other}', and '{ours}' is expected"));
    }
    Flaw::new(findings::MISSING_COLUMN, message)
}

fn field_count(fields: usize, columns: usize) -> Flaw {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let advice = if fields > columns { "; a text that holds the separator must stand in double quotes" } else { "" };
    let message =
        format!("the row has {fields} field{}, the header {columns} column{}{advice}", plural(fields), plural(columns));
    Flaw::new(findings::FIELD_COUNT, message)
}

fn broken_quote(line: u64, broken: Broken) -> Flaw {
    let fault = match broken {
        Broken::TextBehind(at) if at == line => "text follows a closing quote".to_string(),
        Broken::TextBehind(at) => format!("a quote that opens here closes on line {at}, where text follows it"),
        Broken::NeverClosed => "a quote that opens here never closes".to_string(),
    };
    let message = format!("{fault}: close the field with a quote, and double every quote inside it");
    Flaw::new(findings::BROKEN_QUOTE, message)
}
