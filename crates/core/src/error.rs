//! What can go wrong, named by what the caller can do about it.
//!
//! This room knows nothing of HTTP: `http/error.rs` maps these to status codes in one match. There is no
//! `From<sqlx::Error>` and the like: a foreign error enters through [`Context::context`], which asks for the sentence.

use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Error {
    /// Understood, but wrong: the caller has to change the request, the file or the setting.
    Invalid(Problem),
    /// There is no such thing, or not for this caller.
    NotFound(Problem),
    /// Right in itself, but not in the present state.
    Conflict(Problem),
    /// Too much at once: the same call may succeed after `retry_after`.
    Busy { problem: Problem, retry_after: Duration },
    /// Our fault, or the machine's.
    Internal(anyhow::Error),
}

/// A fixed word for machines, a sentence for people that says what to do, and where it applies, the single faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: &'static str,
    pub detail: String,
    pub errors: Vec<FieldError>,
}

/// One fault inside a request or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    #[serde(flatten)]
    pub location: Location,
    pub message: String,
}

/// Where a fault is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// A JSON pointer (RFC 6901) into the request's body.
    Pointer(String),
    /// A line of the file, the first being 1.
    Line(u64),
}

impl Error {
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid(Problem::new(code, detail))
    }

    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::NotFound(Problem::new(code, detail))
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict(Problem::new(code, detail))
    }

    pub fn busy(code: &'static str, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::Busy { problem: Problem::new(code, detail), retry_after }
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        Self::Internal(anyhow::anyhow!("{message}"))
    }

    /// A panic that was caught: `payload` is what `catch_unwind` gave.
    pub fn from_panic(operation: &str, payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::internal(format!("{operation} panicked: {}", text.unwrap_or("without a message")))
    }

    /// The fixed word, `internal` where it is our fault.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(problem) | Self::NotFound(problem) | Self::Conflict(problem) => problem.code,
            Self::Busy { problem, .. } => problem.code,
            Self::Internal(_) => "internal",
        }
    }
}

impl Problem {
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new() }
    }

    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }
}

impl FieldError {
    pub fn at_line(line: u64, message: impl Into<String>) -> Self {
        Self { location: Location::Line(line), message: message.into() }
    }

    pub fn at_pointer(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { location: Location::Pointer(pointer.into()), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(problem) | Self::NotFound(problem) | Self::Conflict(problem) => {
                write!(f, "{}", problem.detail)
            }
            Self::Busy { problem, .. } => write!(f, "{}", problem.detail),
            Self::Internal(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<espalier_tensor::error::Error> for Error {
    fn from(error: espalier_tensor::error::Error) -> Self {
        match error {
            espalier_tensor::error::Error::Unsupported { code, detail } => Self::invalid(code, detail),
            espalier_tensor::error::Error::Internal(error) => Self::Internal(error),
        }
    }
}

/// The door for foreign errors: says what was being done when it failed.
pub trait Context<T> {
    fn context(self, operation: &str) -> Result<T>;
    fn with_context<D: fmt::Display>(self, operation: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E> Context<T> for std::result::Result<T, E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    fn context(self, operation: &str) -> Result<T> {
        self.with_context(|| operation)
    }

    fn with_context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::Internal(anyhow::Error::new(error).context(doing().to_string())))
    }
}
