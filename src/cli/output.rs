//! What commands write: lines and tables for people, or one JSON value for programs.
//!
//! With `--json` standard output carries the JSON alone, and everything for people goes to standard error.

use super::failure::{Failure, Outcome};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    People,
    Json,
}

/// Where a command's output goes.
pub struct Output {
    form: Form,
    people: Box<dyn Write + Send>,
    json: Box<dyn Write + Send>,
    live: Live,
}

/// Whether what is written for people can be overwritten in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    Terminal,
    Plain,
}

impl Output {
    pub fn new(form: Form) -> Self {
        let (people, terminal): (Box<dyn Write + Send>, bool) = match form {
            Form::People => (Box::new(io::stdout()), io::stdout().is_terminal()),
            Form::Json => (Box::new(io::stderr()), io::stderr().is_terminal()),
        };
        let live = if terminal { Live::Terminal } else { Live::Plain };
        Self { form, people, json: Box::new(io::stdout()), live }
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn live(&self) -> Live {
        self.live
    }

    /// A line for people.
    pub fn line(&mut self, text: impl Display) -> Outcome {
        written(writeln!(self.people, "{text}").and_then(|()| self.people.flush()))
    }

    /// The command's result for programs, on one line; nothing unless `--json` was given.
    pub fn result(&mut self, value: &impl Serialize) -> Outcome {
        if self.form == Form::People {
            return Ok(());
        }
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::failed(format!("the result has no JSON form: {error}")))?;
        written(writeln!(self.json, "{text}").and_then(|()| self.json.flush()))
    }

    /// Rows in columns as wide as they need to be; the first row is the heading.
    pub fn table(&mut self, rows: &[Vec<String>]) -> Outcome {
        for line in columns(rows) {
            self.line(line)?;
        }
        Ok(())
    }
}

fn written(result: io::Result<()>) -> Outcome {
    result.map_err(|error| Failure::from_output(&error))
}

/// Columns of numbers lean to the right.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> =
        (0..count).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let numeric: Vec<bool> = (0..count).map(|column| cells(column).skip(1).all(|cell| is_number(cell))).collect();
    let pad = |column: usize, cell: &str| {
        let fill = " ".repeat(widths[column] - cell.chars().count());
        if numeric[column] { format!("{fill}{cell}") } else { format!("{cell}{fill}") }
    };
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().enumerate().map(|(column, cell)| pad(column, cell)).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

/// `7`, `0.5`, `12/145`, `1.5 KiB`, or nothing.
fn is_number(cell: &str) -> bool {
    let number = cell.split_once(' ').map_or(cell, |(number, _unit)| number);
    number.is_empty() || number.split('/').all(|part| part.parse::<f64>().is_ok())
}

/// `1536` as `1.5 KiB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `3725` seconds as `1h02m`.
pub fn span(seconds: f64) -> String {
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

    /// What a command wrote, kept for a test.
    #[derive(Clone, Default)]
    pub struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output and what is written for people and for programs.
    pub fn kept(form: Form) -> (Output, Kept, Kept) {
        let (people, json) = (Kept::default(), Kept::default());
        let output = Output { form, people: Box::new(people.clone()), json: Box::new(json.clone()), live: Live::Plain };
        (output, people, json)
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_lean_right() {
        let rows = [vec!["label", "count"], vec!["2nd_card", "7"], vec!["pin", "120"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(columns(&rows), ["label     count", "2nd_card      7", "pin         120"]);
    }

    #[test]
    fn json_is_for_programs_only_when_asked_for() {
        let (mut output, people, json) = kept(Form::Json);
        output.line("for people").unwrap();
        output.result(&serde_json::json!({"a": 1})).unwrap();
        assert_eq!((people.text().as_str(), json.text().as_str()), ("for people\n", "{\"a\":1}\n"));
        let (mut output, _, json) = kept(Form::People);
        output.result(&1).unwrap();
        assert_eq!(json.text(), "");
    }

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!([size(12), size(1536), size(90_868_376)], ["12 B", "1.5 KiB", "86.7 MiB"]);
        assert_eq!([span(5.2), span(65.0), span(3725.0)], ["5s", "1m05s", "1h02m"]);
    }
}
