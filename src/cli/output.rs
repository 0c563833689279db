//! Output of commands: text for people, or JSON for programs.
//!
//! With `--json` standard output has only the JSON, and text for people goes to standard error.

use super::error::{CliError, CliResult};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Audience of a command's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    Human,
    Json,
}

/// Output streams of a command.
pub struct Output {
    format: OutputFormat,
    human: Box<dyn Write + Send>,
    json: Box<dyn Write + Send>,
    display_mode: DisplayMode,
}

/// Whether text for people goes to a terminal, which allows progress bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisplayMode {
    Interactive,
    Plain,
}

impl Output {
    pub fn new(format: OutputFormat) -> Self {
        let (human, is_terminal): (Box<dyn Write + Send>, bool) = match format {
            OutputFormat::Human => (Box::new(io::stdout()), io::stdout().is_terminal()),
            OutputFormat::Json => (Box::new(io::stderr()), io::stderr().is_terminal()),
        };
        let display_mode = if is_terminal { DisplayMode::Interactive } else { DisplayMode::Plain };
        Self { format, human, json: Box::new(io::stdout()), display_mode }
    }

    pub fn format(&self) -> OutputFormat {
        self.format
    }

    pub fn display_mode(&self) -> DisplayMode {
        self.display_mode
    }

    /// Writes a line for people.
    pub fn write_line(&mut self, text: impl Display) -> CliResult {
        map_write_error(writeln!(self.human, "{text}").and_then(|()| self.human.flush()))
    }

    /// Writes the result as one line of JSON; does nothing without `--json`.
    pub fn write_json(&mut self, value: &impl Serialize) -> CliResult {
        if self.format == OutputFormat::Human {
            return Ok(());
        }
        let text = serde_json::to_string(value)
            .map_err(|error| CliError::failed(format!("the result has no JSON form: {error}")))?;
        map_write_error(writeln!(self.json, "{text}").and_then(|()| self.json.flush()))
    }

    /// Writes rows as aligned columns; the first row is the heading.
    pub fn write_table(&mut self, rows: &[Vec<String>]) -> CliResult {
        for line in align_columns(rows) {
            self.write_line(line)?;
        }
        Ok(())
    }
}

fn map_write_error(result: io::Result<()>) -> CliResult {
    result.map_err(|error| CliError::from_write_error(&error))
}

/// Pads cells to the column width; columns of numbers are right-aligned.
fn align_columns(rows: &[Vec<String>]) -> Vec<String> {
    let column_count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> =
        (0..column_count).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let is_numeric: Vec<bool> =
        (0..column_count).map(|column| cells(column).skip(1).all(|cell| is_number(cell))).collect();
    let pad = |column: usize, cell: &str| {
        let padding = " ".repeat(widths[column] - cell.chars().count());
        if is_numeric[column] { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
    };
    let format_row = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().enumerate().map(|(column, cell)| pad(column, cell)).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(format_row).collect()
}

/// Returns whether a cell is a number such as `7`, `0.5`, `12/145` or `1.5 KiB`, or empty.
fn is_number(cell: &str) -> bool {
    let number = cell.split_once(' ').map_or(cell, |(number, _unit)| number);
    number.is_empty() || number.split('/').all(|part| part.parse::<f64>().is_ok())
}

/// Formats `1536` as `1.5 KiB`.
pub fn format_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Formats `3725` seconds as `1h02m`.
pub fn format_duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Captured output of a command.
    #[derive(Clone, Default)]
    pub struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

    impl CapturedOutput {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for CapturedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Output with its captured text for people and JSON.
    pub fn captured_output(form: OutputFormat) -> (Output, CapturedOutput, CapturedOutput) {
        let (people, json) = (CapturedOutput::default(), CapturedOutput::default());
        let output = Output {
            format: form,
            human: Box::new(people.clone()),
            json: Box::new(json.clone()),
            display_mode: DisplayMode::Plain,
        };
        (output, people, json)
    }

    #[test]
    fn columns_fit_their_widest_cell_and_numbers_align_right() {
        let rows = [vec!["label", "count"], vec!["2nd_card", "7"], vec!["pin", "120"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(align_columns(&rows), ["label     count", "2nd_card      7", "pin         120"]);
    }

    #[test]
    fn json_is_written_only_in_json_format() {
        let (mut output, people, json) = captured_output(OutputFormat::Json);
        output.write_line("for people").unwrap();
        output.write_json(&serde_json::json!({"a": 1})).unwrap();
        assert_eq!((people.text().as_str(), json.text().as_str()), ("for people\n", "{\"a\":1}\n"));
        let (mut output, _, json) = captured_output(OutputFormat::Human);
        output.write_json(&1).unwrap();
        assert_eq!(json.text(), "");
    }

    #[test]
    fn bytes_and_durations_are_short() {
        assert_eq!([format_bytes(12), format_bytes(1536), format_bytes(90_868_376)], ["12 B", "1.5 KiB", "86.7 MiB"]);
        assert_eq!([format_duration(5.2), format_duration(65.0), format_duration(3725.0)], ["5s", "1m05s", "1h02m"]);
    }
}
