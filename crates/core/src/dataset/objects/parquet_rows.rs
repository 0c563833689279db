//! Rows of a Parquet file, decoded on a thread of their own.

use super::class_labels::ClassLabels;
use super::object_source::{ObjectSource, SourceObject};
use super::parquet_levels::LongList;
use super::parquet_pages::CheckedFile;
use super::parquet_schema::check_schema_depth;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::options::Limits;
use crate::dataset::row::record_too_long;
use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Text of the rows in one message, and messages that are decoded ahead of the reader.
const BATCH_BYTES: usize = 1 << 18;
const BATCHES_AHEAD: usize = 2;
/// Rows that are decoded at once per column; fewer where they have lists.
const DECODED_ROWS: usize = 64;
const DECODED_LISTS: usize = 8;

pub(super) struct ParquetRows {
    /// One for every batch that the decoder may send, so that few batches wait.
    requests: Sender<()>,
    batches: Receiver<Message>,
    batch: std::vec::IntoIter<Result<String, Diagnostic>>,
    row: u64,
    current: Result<String, Diagnostic>,
    warnings: Vec<(u64, Diagnostic)>,
    file_error: Option<Diagnostic>,
}

enum Message {
    /// The file is readable; warnings about all of it.
    Opened(Vec<Diagnostic>),
    Rows(Vec<Result<String, Diagnostic>>),
    /// The file cannot be read, or not further.
    Failed(Diagnostic),
}

/// Reason to stop decoding.
enum Stop {
    Failed(Diagnostic),
    /// Nobody reads the rows any more.
    NotRead,
}

impl ParquetRows {
    /// Starts to decode a file.
    ///
    /// # Errors
    /// A diagnostic for a file that is damaged or not supported.
    pub fn open(file: File, limits: &Limits) -> io::Result<Result<Self, Diagnostic>> {
        let (requests, received_requests) = channel();
        let (messages, batches) = channel();
        let output = Output { requests: received_requests, messages };
        let limits = limits.clone();
        thread::Builder::new().name("parquet".to_string()).spawn(move || {
            // The decoder panics on some damaged files.
            let decoded = catch_unwind(AssertUnwindSafe(|| send_rows(file, &limits, &output)));
            let stop = decoded.unwrap_or_else(|_| Err(Stop::Failed(damaged("its content contradicts itself"))));
            if let Err(Stop::Failed(diagnostic)) = stop {
                // Fails only if nobody reads any more.
                let _ = output.messages.send(Message::Failed(diagnostic));
            }
        })?;
        for _ in 0..BATCHES_AHEAD {
            // Fails if the decoder has stopped, which its message explains.
            let _ = requests.send(());
        }
        Ok(match batches.recv() {
            Ok(Message::Opened(warnings)) => Ok(Self {
                requests,
                batches,
                batch: Vec::new().into_iter(),
                row: 0,
                current: Ok(String::new()),
                warnings: warnings.into_iter().map(|warning| (1, warning)).collect(),
                file_error: None,
            }),
            Ok(Message::Failed(diagnostic)) => Err(diagnostic),
            Ok(Message::Rows(_)) | Err(_) => Err(damaged("it cannot be opened")),
        })
    }
}

impl ObjectSource for ParquetRows {
    fn next_object(&mut self) -> io::Result<Option<SourceObject<'_>>> {
        while self.batch.len() == 0 {
            match self.batches.recv() {
                Ok(Message::Rows(rows)) => {
                    self.batch = rows.into_iter();
                    // Fails after the last batch.
                    let _ = self.requests.send(());
                }
                Ok(Message::Opened(_)) => {}
                Ok(Message::Failed(diagnostic)) => {
                    self.file_error = Some(diagnostic);
                    return Ok(None);
                }
                Err(_) => return Ok(None),
            }
        }
        let Some(row) = self.batch.next() else { return Ok(None) };
        self.row += 1;
        self.current = row;
        let text = match &self.current {
            Ok(text) => Ok(Cow::Borrowed(text.as_str())),
            Err(diagnostic) => Err(diagnostic.clone()),
        };
        Ok(Some(SourceObject { line: self.row, text }))
    }

    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        std::mem::take(&mut self.warnings)
    }

    fn take_file_error(&mut self) -> Option<Diagnostic> {
        self.file_error.take()
    }
}

fn send_rows(file: File, limits: &Limits, output: &Output) -> Result<(), Stop> {
    let file_error = |error: io::Error| Stop::Failed(damaged(&error.to_string()));
    check_schema_depth(&file).map_err(file_error)?.map_err(|reason| Stop::Failed(damaged(reason)))?;
    let reader = CheckedFile::open(file, limits).map_err(|error| Stop::Failed(not_readable(&error)))?;
    let metadata = reader.metadata().file_metadata();
    let labels = ClassLabels::from_metadata(metadata.key_value_metadata().map_or(&[], Vec::as_slice));
    output.messages.send(Message::Opened(labels.warnings())).map_err(|_| Stop::NotRead)?;
    let mut rows = Vec::new();
    let (mut batch_bytes, mut total_bytes) = (0, 0);
    let batch_rows = if reader.has_lists() { DECODED_LISTS } else { DECODED_ROWS };
    for row in RowIter::from_file_into(Box::new(reader)).with_batch_size(batch_rows) {
        let text = row_text(&row.map_err(|error| Stop::Failed(not_readable(&error)))?, &labels);
        batch_bytes += text.len();
        total_bytes += text.len() as u64;
        if total_bytes > limits.max_bytes {
            return Err(Stop::Failed(too_many_bytes(limits.max_bytes)));
        }
        let is_long = text.len() > limits.max_record_bytes;
        rows.push(if is_long { Err(record_too_long(limits.max_record_bytes)) } else { Ok(text) });
        if batch_bytes > BATCH_BYTES {
            batch_bytes = 0;
            output.send_batch(std::mem::take(&mut rows))?;
        }
    }
    output.send_batch(rows)
}

/// Where the decoder sends its rows.
struct Output {
    requests: Receiver<()>,
    messages: Sender<Message>,
}

impl Output {
    /// Sends a batch once it is requested.
    fn send_batch(&self, rows: Vec<Result<String, Diagnostic>>) -> Result<(), Stop> {
        self.requests.recv().map_err(|_| Stop::NotRead)?;
        self.messages.send(Message::Rows(rows)).map_err(|_| Stop::NotRead)
    }
}

/// A row as the text of a JSON object.
fn row_text(row: &Row, labels: &ClassLabels) -> String {
    let mut text = String::from("{");
    for (index, (name, field)) in row.get_column_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_string(&mut text, name);
        text.push(':');
        push_field(&mut text, field, labels.names(name));
    }
    text.push('}');
    text
}

/// Appends a value as JSON. Integers with names are written as these, and bytes that are no text as null.
fn push_field(text: &mut String, field: &Field, names: Option<&[String]>) {
    if let Some(names) = names
        && let Some(class) = integer(field)
    {
        // A class below 0 says that there is none.
        match usize::try_from(class).ok().map(|class| names.get(class)) {
            None => text.push_str("null"),
            Some(Some(name)) => push_string(text, name),
            Some(None) => text.push_str(&class.to_string()),
        }
        return;
    }
    match field {
        Field::Null => text.push_str("null"),
        Field::Float16(value) if !value.is_finite() => text.push_str("null"),
        Field::Float(value) if !value.is_finite() => text.push_str("null"),
        Field::Double(value) if !value.is_finite() => text.push_str("null"),
        Field::Float16(value) => text.push_str(&value.to_string()),
        Field::Float(value) => text.push_str(&value.to_string()),
        Field::Double(value) => text.push_str(&value.to_string()),
        Field::UByte(value) => text.push_str(&value.to_string()),
        Field::UShort(value) => text.push_str(&value.to_string()),
        Field::UInt(value) => text.push_str(&value.to_string()),
        Field::ULong(value) => text.push_str(&value.to_string()),
        Field::Byte(_) | Field::Short(_) | Field::Int(_) | Field::Long(_) | Field::Bool(_) | Field::Decimal(_) => {
            text.push_str(&field.to_string());
        }
        Field::Str(value) => push_string(text, value),
        Field::Bytes(value) => match value.as_utf8() {
            Ok(value) => push_string(text, value),
            Err(_) => text.push_str("null"),
        },
        Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => {
            push_string(text, &field.to_string());
        }
        Field::Group(row) => push_members(text, '{', row.get_column_iter(), |text, (name, field)| {
            push_string(text, name);
            text.push(':');
            push_field(text, field, None);
        }),
        Field::ListInternal(list) => {
            push_members(text, '[', list.elements().iter(), |text, field| push_field(text, field, names));
        }
        Field::MapInternal(map) => push_members(text, '{', map.entries().iter(), |text, (key, field)| {
            let name = if let Field::Str(name) = key { name.clone() } else { key.to_string() };
            push_string(text, &name);
            text.push(':');
            push_field(text, field, None);
        }),
    }
}

fn push_members<T>(
    text: &mut String,
    opening: char,
    members: impl Iterator<Item = T>,
    mut push: impl FnMut(&mut String, T),
) {
    text.push(opening);
    for (index, member) in members.enumerate() {
        if index > 0 {
            text.push(',');
        }
        push(text, member);
    }
    text.push(if opening == '{' { '}' } else { ']' });
}

fn push_string(text: &mut String, value: &str) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

fn integer(field: &Field) -> Option<i64> {
    match field {
        Field::Byte(value) => Some(i64::from(*value)),
        Field::Short(value) => Some(i64::from(*value)),
        Field::Int(value) => Some(i64::from(*value)),
        Field::Long(value) => Some(*value),
        _ => None,
    }
}

fn not_readable(error: &ParquetError) -> Diagnostic {
    match error {
        ParquetError::NYI(reason) => {
            let message = format!(
                "the Parquet file uses what is not supported ({reason}): write it with \
                 `python -c \"import pandas; pandas.read_parquet('rows.parquet').to_parquet('rows-snappy.parquet', compression='snappy')\"`"
            );
            Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
        }
        ParquetError::External(reason) if reason.is::<LongList>() => {
            Diagnostic::new(diagnostics::RECORD_TOO_LONG, reason.to_string())
        }
        error => damaged(&error.to_string()),
    }
}

fn damaged(reason: &str) -> Diagnostic {
    let message = format!("the Parquet file is damaged ({reason}): write it again, or convert it to CSV or JSON lines");
    Diagnostic::new(diagnostics::DAMAGED_FILE, message)
}

fn too_many_bytes(limit: u64) -> Diagnostic {
    let message =
        format!("the rows of the Parquet file have more than the {limit} bytes that this server takes: send fewer");
    Diagnostic::new(diagnostics::TOO_MANY_BYTES, message)
}

#[cfg(test)]
mod tests;
