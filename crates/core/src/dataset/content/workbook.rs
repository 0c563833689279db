//! The first sheet with cells of an Excel workbook, as CSV: a record per row of the sheet, blank ones included.

use super::{LimitedWriter, unpack};
use crate::dataset::diagnostics::{self, Diagnostic, quote, quote_list};
use calamine::{Cell, DataRef, Reader, SheetType, Xlsx, XlsxError};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::thread;

/// Last row and column that Excel has.
const MAX_ROWS: u32 = 1 << 20;
const MAX_COLUMNS: u32 = 1 << 14;
/// Sheets that are looked at, and their bytes if each had those of the largest part, as a multiple of a file's: sheets may share a
/// part.
const MAX_SHEETS: usize = 256;
const MAX_SHEET_READS: u64 = 8;

/// Converts a workbook into `target`. Returns warnings with their rows.
///
/// # Errors
/// A diagnostic for a workbook that is damaged, has no cells, or is too large.
pub(super) fn write_first_sheet(
    file: &File,
    target: &File,
    max_bytes: u64,
) -> io::Result<Result<Vec<(u64, Diagnostic)>, Diagnostic>> {
    // The decoder may panic on damaged files.
    let converted = thread::scope(|scope| {
        let convert = || convert(file, target, max_bytes);
        thread::Builder::new()
            .name("workbook".to_string())
            .spawn_scoped(scope, convert)
            .map(thread::ScopedJoinHandle::join)
    })?;
    converted.unwrap_or_else(|_| Ok(Err(damaged("its content contradicts itself"))))
}

fn convert(file: &File, target: &File, max_bytes: u64) -> io::Result<Result<Vec<(u64, Diagnostic)>, Diagnostic>> {
    let largest_part = match check_unpacked_size(file, max_bytes)? {
        Ok(largest_part) => largest_part,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    let mut reader = BufReader::new(file.try_clone()?);
    reader.rewind()?;
    let mut workbook = match Xlsx::new(reader) {
        Ok(workbook) => workbook,
        Err(error) => return Ok(Err(not_readable(&error))),
    };
    let sheets = workbook.sheets_metadata().iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
    let sheets: Vec<String> = sheets.map(|sheet| sheet.name.clone()).collect();
    let sheet_bytes = largest_part.saturating_mul(sheets.len() as u64);
    if sheets.len() > MAX_SHEETS || sheet_bytes > max_bytes.saturating_mul(MAX_SHEET_READS) {
        return Ok(Err(too_many_sheets(sheets.len())));
    }
    let mut table: Option<(String, Table<'_>)> = None;
    let mut other_sheets = Vec::new();
    for name in sheets {
        if table.is_some() {
            match has_cells(&mut workbook, &name) {
                Ok(true) => other_sheets.push(name),
                Ok(false) => {}
                Err(error) => return Ok(Err(not_readable(&error))),
            }
            continue;
        }
        let mut writer = Table::new(target, max_bytes);
        match writer.write_sheet(&mut workbook, &name)? {
            Ok(0) => {}
            Ok(_) => table = Some((name, writer)),
            Err(diagnostic) => return Ok(Err(diagnostic)),
        }
    }
    let Some((name, table)) = table else {
        let message = "the workbook has no cells: put a header and a row for each example into its first sheet";
        return Ok(Err(Diagnostic::new(diagnostics::NO_USABLE_ROW, message)));
    };
    let mut warnings = table.finish()?;
    if !other_sheets.is_empty() {
        let message = format!(
            "the rows are those of the sheet {}; other sheets are not read: {}",
            quote(&name),
            quote_list(other_sheets.iter().map(String::as_str))
        );
        warnings.insert(0, (1, Diagnostic::new(diagnostics::NOT_READ, message)));
    }
    Ok(Ok(warnings))
}

type Workbook = Xlsx<BufReader<File>>;

/// Unpacks the workbook's parts once without keeping them, because their declared sizes may be wrong. Returns the bytes of the largest.
fn check_unpacked_size(file: &File, max_bytes: u64) -> io::Result<Result<u64, Diagnostic>> {
    let mut archive = match unpack::open_archive(file)? {
        Ok(archive) => archive,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    let (mut remaining, mut largest) = (max_bytes, 0);
    for index in 0..archive.len() {
        let Ok(entry) = archive.by_index(index) else { return Ok(Err(damaged("a part of it cannot be unpacked"))) };
        match io::copy(&mut entry.take(remaining + 1), &mut io::sink()) {
            Ok(bytes) if bytes <= remaining => {
                remaining -= bytes;
                largest = largest.max(bytes);
            }
            Ok(_) => return Ok(Err(super::too_many_bytes(max_bytes))),
            Err(error) => return Ok(Err(damaged(&error.to_string()))),
        }
    }
    Ok(Ok(largest))
}

fn has_cells(workbook: &mut Workbook, sheet: &str) -> Result<bool, XlsxError> {
    let mut cells = workbook.worksheet_cells_reader(sheet)?;
    while let Some(cell) = cells.next_cell()? {
        if *cell.get_value() != DataRef::Empty {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writer of a sheet's rows.
struct Table<'a> {
    writer: LimitedWriter<'a>,
    /// Text of the row so far.
    record: Vec<u8>,
    /// Number of the row, from 0, and of its next column.
    row: u32,
    column: u32,
    /// Columns of the header.
    header_columns: u32,
    first_error: Option<(u64, String)>,
    max_bytes: usize,
}

impl<'a> Table<'a> {
    fn new(target: &'a File, max_bytes: u64) -> Self {
        Self {
            writer: LimitedWriter::new(target, max_bytes),
            record: Vec::new(),
            row: 0,
            column: 0,
            header_columns: 0,
            first_error: None,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Writes the cells of a sheet and returns their number.
    fn write_sheet(&mut self, workbook: &mut Workbook, sheet: &str) -> io::Result<Result<u64, Diagnostic>> {
        let mut cells = match workbook.worksheet_cells_reader(sheet) {
            Ok(cells) => cells,
            Err(error) => return Ok(Err(not_readable(&error))),
        };
        let mut count = 0;
        loop {
            match cells.next_cell() {
                Ok(None) => break,
                Ok(Some(cell)) if *cell.get_value() == DataRef::Empty => {}
                Ok(Some(cell)) => {
                    count += 1;
                    if let Err(diagnostic) = self.push(&cell)? {
                        return Ok(Err(diagnostic));
                    }
                }
                Err(error) => return Ok(Err(not_readable(&error))),
            }
        }
        Ok(if count > 0 { self.end_row()?.map(|()| count) } else { Ok(0) })
    }

    fn push(&mut self, cell: &Cell<DataRef<'_>>) -> io::Result<Result<(), Diagnostic>> {
        let (row, column) = cell.get_position();
        if row >= MAX_ROWS || column >= MAX_COLUMNS || row < self.row || (row == self.row && column < self.column) {
            return Ok(Err(damaged("its cells are not in order")));
        }
        while self.row < row {
            if let Err(diagnostic) = self.end_row()? {
                return Ok(Err(diagnostic));
            }
        }
        while self.column < column {
            self.end_cell();
        }
        let text = cell_text(cell.get_value());
        // Many cells may share one string, so a row is not bounded by the file.
        if self.record.len() + text.len() > self.max_bytes {
            return Ok(Err(super::too_many_bytes(self.max_bytes as u64)));
        }
        if let DataRef::Error(error) = cell.get_value() {
            self.first_error.get_or_insert((u64::from(row) + 1, error.to_string()));
        }
        self.record.push(b'"');
        for byte in text.bytes() {
            self.record.extend(std::iter::repeat_n(byte, 1 + usize::from(byte == b'"')));
        }
        self.record.push(b'"');
        self.end_cell();
        Ok(Ok(()))
    }

    /// Ends a cell; the separator follows it.
    fn end_cell(&mut self) {
        self.record.push(b',');
        self.column += 1;
    }

    /// Writes the row, with the header's number of columns unless it has more.
    fn end_row(&mut self) -> io::Result<Result<(), Diagnostic>> {
        if self.column > 0 {
            if self.header_columns == 0 {
                self.header_columns = self.column;
            }
            while self.column < self.header_columns {
                self.end_cell();
            }
            // The separator after the last cell.
            self.record.pop();
        }
        self.record.push(b'\n');
        let written = self.writer.write(&self.record)?;
        self.record.clear();
        self.row += 1;
        self.column = 0;
        Ok(written)
    }

    fn finish(self) -> io::Result<Vec<(u64, Diagnostic)>> {
        self.writer.finish()?;
        let warning = |(row, error)| {
            let message = format!(
                "this row and perhaps later ones hold formula errors such as {error}, which are read as empty cells"
            );
            (row, Diagnostic::new(diagnostics::NOT_READ, message))
        };
        Ok(self.first_error.map(warning).into_iter().collect())
    }
}

/// Text of a cell, as Excel writes it into CSV files, with dates in the form of ISO 8601.
fn cell_text(value: &DataRef<'_>) -> String {
    match value {
        DataRef::Int(number) => number.to_string(),
        DataRef::Float(number) => number.to_string(),
        DataRef::String(text) => text.clone(),
        DataRef::SharedString(text) => (*text).to_string(),
        DataRef::Bool(true) => "TRUE".to_string(),
        DataRef::Bool(false) => "FALSE".to_string(),
        DataRef::DateTime(time) if time.is_duration() => time.as_f64().to_string(),
        DataRef::DateTime(time) => match time.to_ymd_hms_milli() {
            (year, month, day, 0, 0, 0, 0) => format!("{year:04}-{month:02}-{day:02}"),
            (year, month, day, hour, minute, second, _) => {
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
            }
        },
        DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::Error(_) | DataRef::Empty => String::new(),
    }
}

fn not_readable(error: &XlsxError) -> Diagnostic {
    match error {
        XlsxError::Password => {
            let message = "the workbook has a password: save it without one, or as CSV UTF-8";
            Diagnostic::new(diagnostics::DAMAGED_FILE, message)
        }
        error => damaged(&error.to_string()),
    }
}

fn too_many_sheets(count: usize) -> Diagnostic {
    let message = format!(
        "the workbook has {count} sheets, and at most {MAX_SHEETS} are looked at, fewer where they are large: save the sheet with the \
         rows as a workbook of its own, or as CSV UTF-8"
    );
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}

fn damaged(reason: &str) -> Diagnostic {
    let message = format!("the Excel workbook cannot be read ({reason}): save it again as .xlsx, or as CSV UTF-8");
    Diagnostic::new(diagnostics::DAMAGED_FILE, message)
}

#[cfg(test)]
mod tests;
