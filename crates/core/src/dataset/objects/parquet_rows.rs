//! Rows of a Parquet file, decoded on a thread of their own.

use super::class_labels::ClassLabels;
use super::object_source::{ObjectSource, SourceObject};
use super::parquet_levels::LongList;
use super::parquet_pages::CheckedFile;
use super::parquet_schema::check_schema_depth;
use super::parquet_text::row_text;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::options::Limits;
use crate::dataset::row::record_too_long;
use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::record::reader::RowIter;
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
        let row = row.map_err(|error| Stop::Failed(not_readable(&error)))?;
        let text = row_text(&row, &labels, limits.max_record_bytes);
        batch_bytes += text.as_ref().map_or(0, String::len);
        total_bytes += text.as_ref().map_or_else(|bytes| *bytes, String::len) as u64;
        if total_bytes > limits.max_bytes {
            return Err(Stop::Failed(too_many_bytes(limits.max_bytes)));
        }
        rows.push(text.map_err(|_| record_too_long(limits.max_record_bytes)));
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

fn not_readable(error: &ParquetError) -> Diagnostic {
    let reason = match error {
        ParquetError::NYI(reason) => reason.clone(),
        ParquetError::General(reason) => match reason.rsplit_once("Disabled feature at compile time: ") {
            Some((_, compression)) => format!("the compression {compression}"),
            None => return damaged(&error.to_string()),
        },
        ParquetError::External(reason) if reason.is::<LongList>() => {
            return Diagnostic::new(diagnostics::RECORD_TOO_LONG, reason.to_string());
        }
        error => return damaged(&error.to_string()),
    };
    let message = format!(
        "the Parquet file uses what is not supported ({reason}): write it with \
         `python -c \"import pandas; pandas.read_parquet('rows.parquet').to_parquet('rows-snappy.parquet', compression='snappy')\"`"
    );
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
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
