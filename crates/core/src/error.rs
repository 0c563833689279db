//! The error type, one variant per reaction that the caller has.
//!
//! Errors of other crates have no `From` conversion: they enter through [`Context::context`], which adds the failed operation.
//! `http/error.rs` maps the variants to status codes.

use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Error {
    /// The request, file or setting was understood but is wrong; the caller has to change it.
    Invalid(Problem),
    /// The resource does not exist, or belongs to another owner.
    NotFound(Problem),
    /// The operation is not possible in the resource's current state.
    Conflict(Problem),
    /// A limit on concurrent work is reached, or the database is unavailable; the same call may succeed after `retry_after`.
    Busy { problem: Problem, retry_after: Duration },
    /// A quota of the caller is used up: the caller has to delete something, or its quota has to be raised.
    QuotaExceeded(Problem),
    /// The disk or its quota is full; the same call may succeed once the operator has freed space.
    StorageFull(anyhow::Error),
    /// A bug, or a failure of the disk or the network.
    Internal(anyhow::Error),
}

/// Description of an error for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable identifier for programs, such as `invalid_body`.
    pub code: &'static str,
    /// Sentence for people that says what to do.
    pub detail: String,
    /// Errors of single fields or lines; may be empty.
    pub errors: Vec<FieldError>,
}

/// Error of one field of a request, or of one line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    #[serde(flatten)]
    pub location: Location,
    pub message: String,
}

/// Position of a [`FieldError`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// JSON pointer (RFC 6901) into the request body.
    Pointer(String),
    /// Line number in the file, counted from 1.
    Line(u64),
}

impl Error {
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid(Problem::new(code, detail))
    }

    /// Error `invalid_body` of the request field at `pointer`; the detail names the field.
    pub fn invalid_field(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(Problem::at_field("invalid_body", pointer, message))
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

    /// Classifies an error of another crate: a full disk, or internal.
    pub fn from_cause(cause: anyhow::Error) -> Self {
        match is_storage_full(&cause) {
            true => Self::StorageFull(cause),
            false => Self::Internal(cause),
        }
    }

    /// Converts the payload of `catch_unwind` or of a joined thread.
    pub fn from_panic(operation: &str, payload: &(dyn Any + Send)) -> Self {
        Self::internal(format!("{operation} panicked: {}", panic_reason(payload)))
    }

    /// Adds the request field that an error about its value is about; an error that names fields keeps them.
    pub fn about_field(mut self, pointer: &str) -> Self {
        if let Self::Invalid(problem) = &mut self
            && problem.errors.is_empty()
        {
            problem.errors = vec![FieldError::at_pointer(pointer, problem.detail.clone())];
        }
        self
    }

    /// Returns the problem's code; `storage_full` for [`Error::StorageFull`] and `internal` for [`Error::Internal`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(problem)
            | Self::NotFound(problem)
            | Self::Conflict(problem)
            | Self::QuotaExceeded(problem) => problem.code,
            Self::Busy { problem, .. } => problem.code,
            Self::StorageFull(_) => "storage_full",
            Self::Internal(_) => "internal",
        }
    }
}

impl Problem {
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new() }
    }

    /// Problem of the request field at `pointer`, with the detail `field.subfield: message`.
    pub fn at_field(code: &'static str, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        let (pointer, message) = (pointer.into(), message.into());
        let field = field_path(&pointer);
        let field = if field.is_empty() { "the body" } else { &field };
        Self::new(code, format!("{field}: {message}")).with_errors(vec![FieldError::at_pointer(pointer, message)])
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

/// JSON pointer (RFC 6901) of a path.
pub fn json_pointer<S: AsRef<str>>(path: &[S]) -> String {
    path.iter().map(|part| format!("/{}", part.as_ref().replace('~', "~0").replace('/', "~1"))).collect()
}

/// Path of a field as programs write it: that of the JSON pointer `/messages/0/role` is `messages[0].role`.
pub fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let is_index = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        match is_index && !path.is_empty() {
            true => path += &format!("[{part}]"),
            false if path.is_empty() => path += part,
            false => path += &format!(".{part}"),
        }
    }
    path.replace("~1", "/").replace("~0", "~")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(problem)
            | Self::NotFound(problem)
            | Self::Conflict(problem)
            | Self::QuotaExceeded(problem) => {
                write!(f, "{}", problem.detail)
            }
            Self::Busy { problem, .. } => write!(f, "{}", problem.detail),
            Self::StorageFull(error) | Self::Internal(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<espalier_tensor::error::Error> for Error {
    fn from(error: espalier_tensor::error::Error) -> Self {
        match error {
            espalier_tensor::error::Error::Unsupported { code, detail } => Self::invalid(code, detail),
            espalier_tensor::error::Error::Internal(error) => Self::from_cause(error),
        }
    }
}

fn is_storage_full(cause: &anyhow::Error) -> bool {
    let mut io_errors = cause.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io_errors.any(|error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

/// Converts errors of other crates into [`Error::StorageFull`] or [`Error::Internal`], with the operation that failed.
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
        self.map_err(|error| Error::from_cause(anyhow::Error::new(error).context(doing().to_string())))
    }
}

/// Message of a panic without the values in it, which may be texts of users: panics of string slices quote the string, and those of
/// `unwrap` and `assert_eq` show values.
pub fn panic_reason(payload: &(dyn Any + Send)) -> &str {
    const BEFORE_VALUES: [&str; 4] = [" of `", " slicing `", " value: ", "\n"];
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    let end = BEFORE_VALUES.iter().filter_map(|mark| text.find(mark)).min();
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_fields_have_indices_in_brackets() {
        for (pointer, path) in [
            ("/messages/1/role", "messages[1].role"),
            ("/tools/0/function/parameters/properties/a~1b", "tools[0].function.parameters.properties.a/b"),
            ("/model", "model"),
            ("", ""),
        ] {
            assert_eq!(field_path(pointer), path);
        }
    }

    #[test]
    fn a_field_is_added_to_an_error_without_one() {
        let error = Error::invalid("too_long", "the prompt is too long").about_field("/prompt");
        let Error::Invalid(problem) = error else { panic!("{error}") };
        assert_eq!(problem.errors, [FieldError::at_pointer("/prompt", "the prompt is too long")]);
        let error = Error::invalid_field("/a", "is wrong").about_field("/prompt");
        let Error::Invalid(problem) = error else { panic!("{error}") };
        assert_eq!(problem.errors, [FieldError::at_pointer("/a", "is wrong")]);
    }

    #[test]
    fn a_full_disk_is_recognized_below_the_errors_of_other_crates() {
        #[derive(Debug)]
        struct Wrapper(io::Error);
        impl fmt::Display for Wrapper {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a write failed")
            }
        }
        impl std::error::Error for Wrapper {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        // ENOSPC and EDQUOT
        for number in [28, 122] {
            let outcome: Result<()> = Err(Wrapper(io::Error::from_raw_os_error(number))).context("writing");
            assert_eq!(outcome.unwrap_err().code(), "storage_full");
        }
        let outcome: Result<()> = Err(io::Error::from_raw_os_error(5)).context("writing");
        assert_eq!(outcome.unwrap_err().code(), "internal");
    }

    #[test]
    fn reasons_of_panics_have_no_values() {
        let text = "a secret \u{e9} text".to_string();
        let panics: [&(dyn Fn() + std::panic::RefUnwindSafe); 4] = [
            &|| drop(text[..10].to_string()),
            &|| drop(text[..1000].to_string()),
            &|| "word".parse::<u32>().map(drop).map_err(|_| text.clone()).unwrap(),
            &|| assert_eq!(text, "other"),
        ];
        for panic in panics {
            let payload = std::panic::catch_unwind(panic).unwrap_err();
            let reason = panic_reason(payload.as_ref());
            assert!(!reason.contains("secret") && reason.len() > 10, "{reason}");
        }
    }
}
