//! Why a command did not succeed, as its user sees it: a sentence, the single faults, an exit code.
//!
//! Knows nothing of single commands. Exit codes: 0 done, 1 failed, 2 what was given is wrong.

use espalier_core::error::{Error, FieldError, Location};
use std::fmt::Write;
use std::io;

pub type CliResult<T = ()> = Result<T, CliError>;

#[derive(Debug)]
pub enum CliError {
    /// The command, a file or the request has to be changed.
    InvalidInput(String),
    /// Something failed that the user's words did not cause.
    Failed(String),
    /// Who read our output has gone, as `head` does: nothing is wrong.
    BrokenPipe,
}

impl CliError {
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::InvalidInput(message.into())
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::InvalidInput(_) => 2,
            Self::Failed(_) => 1,
            Self::BrokenPipe => 0,
        }
    }

    /// What is written to standard error.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::InvalidInput(message) | Self::Failed(message) => Some(format!("error: {message}")),
            Self::BrokenPipe => None,
        }
    }

    /// A failure to write our own output.
    pub fn from_write_error(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::failed(format!("the output cannot be written: {error}")),
        }
    }
}

/// What the rooms report at start, on this machine.
impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Invalid(problem) => Self::InvalidInput(format_field_errors(&problem.detail, &problem.errors)),
            _ => Self::Failed(error.to_string()),
        }
    }
}

fn format_field_errors(detail: &str, errors: &[FieldError]) -> String {
    errors.iter().fold(detail.to_string(), |mut text, error| {
        let location = match &error.location {
            Location::Pointer(pointer) => pointer.clone(),
            Location::Line(line) => format!("line {line}"),
        };
        let _ = write!(text, "\n  {location}: {}", error.message);
        text
    })
}
