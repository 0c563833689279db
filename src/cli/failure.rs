//! Why a command did not succeed, as its user sees it: a sentence, the single faults, an exit code.
//!
//! Knows nothing of single commands. Exit codes: 0 done, 1 failed, 2 what was given is wrong.

use espalier_core::error::{Error, Fault, Place};
use std::fmt::Write;
use std::io;

pub type Outcome<T = ()> = Result<T, Failure>;

#[derive(Debug)]
pub enum Failure {
    /// The command, a file or the request has to be changed.
    BadInput(String),
    /// Something failed that the user's words did not cause.
    Failed(String),
    /// Who read our output has gone, as `head` does: nothing is wrong.
    ReaderGone,
}

impl Failure {
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::BadInput(message.into())
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadInput(_) => 2,
            Self::Failed(_) => 1,
            Self::ReaderGone => 0,
        }
    }

    /// What is written to standard error.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::BadInput(message) | Self::Failed(message) => Some(format!("error: {message}")),
            Self::ReaderGone => None,
        }
    }

    /// A failure to write our own output.
    pub fn from_output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::failed(format!("the output cannot be written: {error}")),
        }
    }
}

/// What the rooms report at start, on this machine.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Invalid(problem) => Self::BadInput(with_faults(&problem.detail, &problem.faults)),
            _ => Self::Failed(error.to_string()),
        }
    }
}

fn with_faults(detail: &str, faults: &[Fault]) -> String {
    faults.iter().fold(detail.to_string(), |mut text, fault| {
        let place = match &fault.place {
            Place::Pointer(pointer) => pointer.clone(),
            Place::Line(line) => format!("line {line}"),
        };
        let _ = write!(text, "\n  {place}: {}", fault.message);
        text
    })
}
