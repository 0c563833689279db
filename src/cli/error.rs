//! Errors of commands: message, field errors and exit code; error responses of the server (RFC 9457).

use espalier_core::error::{self, Error, Location};
use serde::Deserialize;
use std::fmt::Write;
use std::io;

pub type CliResult<T = ()> = Result<T, CliError>;

/// Reason why a command did not succeed.
#[derive(Debug)]
pub enum CliError {
    /// The command line, a file or the request is invalid. Exit code 2.
    InvalidInput(String),
    /// The command failed for another reason. Exit code 1.
    Failed(String),
    /// The reader of standard output, such as `head`, has closed it. Exit code 0.
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

    /// Message for standard error.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::InvalidInput(message) | Self::Failed(message) => Some(format!("error: {message}")),
            Self::BrokenPipe => None,
        }
    }

    /// Converts an error of writing to standard output or standard error.
    pub fn from_write_error(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::failed(format!("the output cannot be written: {error}")),
        }
    }
}

/// Errors of commands that run the server's modules in this process.
impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Invalid(problem) => Self::InvalidInput(format_field_errors(
                &problem.detail,
                problem.errors.iter().map(FieldError::from),
                None,
            )),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Appends one line per field error. Errors of a line of `file` are shown as `file:line: message`.
fn format_field_errors(detail: &str, errors: impl Iterator<Item = FieldError>, file: Option<&str>) -> String {
    errors.fold(detail.to_string(), |mut text, error| {
        let location = match (error.line, &error.pointer, file) {
            (Some(line), _, Some(file)) => format!("{file}:{line}: "),
            (Some(line), _, None) => format!("  line {line}: "),
            (None, Some(pointer), _) if !pointer.is_empty() => format!("  {pointer}: "),
            _ => "  ".to_string(),
        };
        let _ = write!(text, "\n{location}{}", error.message);
        text
    })
}

/// Error response of the server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub request_id: String,
}

/// Error of one field of the request, or of one line of the file.
#[derive(Debug, Clone, Deserialize)]
pub struct FieldError {
    pub pointer: Option<String>,
    pub line: Option<u64>,
    pub message: String,
}

impl From<&error::FieldError> for FieldError {
    fn from(error: &error::FieldError) -> Self {
        let (pointer, line) = match &error.location {
            Location::Pointer(pointer) => (Some(pointer.clone()), None),
            Location::Line(line) => (None, Some(*line)),
        };
        Self { pointer, line, message: error.message.clone() }
    }
}

impl Problem {
    /// Parses the body of an error response. A body that is not a problem document, such as a proxy's HTML page, is ignored.
    pub fn from_response(status: u16, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_default();
        problem.status = status;
        if problem.detail.is_empty() {
            problem.detail =
                format!("the server answered {status} without saying why: is it espalier, at this address?");
        }
        problem
    }

    /// Converts the response into the error of a command; `file` is the file that was sent.
    pub fn to_error(&self, file: Option<&str>) -> CliError {
        let mut text = format_field_errors(&self.detail, self.errors.iter().cloned(), file);
        if self.status == 401 {
            text.push_str("\nset the key with --api-key or ESPALIER_API_KEY");
        }
        if self.status >= 500 && !self.request_id.is_empty() {
            let _ = write!(text, "\n(request {}: the server's log says more)", self.request_id);
        }
        match self.status {
            400 | 404 | 405 | 413 | 415 | 422 => CliError::InvalidInput(text),
            _ => CliError::Failed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID_ROWS: &[u8] =
        br#"{"type": "urn:x", "title": "Unprocessable Entity", "status": 422, "code": "bad_rows",
        "detail": "2 rows cannot be used: correct them", "request_id": "r1", "errors": [
        {"line": 7, "message": "the text is empty"}, {"pointer": "/columns/label", "message": "no such column"}]}"#;

    #[test]
    fn field_errors_are_shown_by_file_and_line() {
        let error = Problem::from_response(422, INVALID_ROWS).to_error(Some("rows.csv"));
        let shown = "error: 2 rows cannot be used: correct them\nrows.csv:7: the text is empty\n  /columns/label: no such column";
        assert_eq!(error.message().as_deref(), Some(shown));
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn proxy_error_page_is_not_shown() {
        let error = Problem::from_response(502, b"<html>Bad Gateway</html>").to_error(None);
        assert!(error.message().unwrap().contains("answered 502"));
        assert_eq!(error.exit_code(), 1);
    }
}
