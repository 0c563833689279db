//! A server's refusal (RFC 9457) in words. Knows nothing of what was asked.

use super::error::CliError;
use serde::Deserialize;
use std::fmt::Write;

/// The server's answer where it did not do what was asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub request_id: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct FieldError {
    pub pointer: Option<String>,
    pub line: Option<u64>,
    pub message: String,
}

impl Problem {
    /// Reads the body of an error answer; one that is no problem document (a proxy's page) keeps the status alone.
    pub fn from_response(status: u16, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_default();
        problem.status = status;
        if problem.detail.is_empty() {
            problem.detail =
                format!("the server answered {status} without saying why: is it espalier, at this address?");
        }
        problem
    }

    /// The failure of a command. Faults at a line are shown as `file:line: message` where a file was sent.
    pub fn to_error(&self, file: Option<&str>) -> CliError {
        let mut text = self.detail.clone();
        for error in &self.errors {
            let location = match (error.line, &error.pointer, file) {
                (Some(line), _, Some(file)) => format!("{file}:{line}: "),
                (Some(line), _, None) => format!("  line {line}: "),
                (None, Some(pointer), _) if !pointer.is_empty() => format!("  {pointer}: "),
                _ => "  ".to_string(),
            };
            let _ = write!(text, "\n{location}{}", error.message);
        }
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

    const REFUSED: &[u8] = br#"{"type": "urn:x", "title": "Unprocessable Entity", "status": 422, "code": "bad_rows",
        "detail": "2 rows cannot be used: correct them", "request_id": "r1", "errors": [
        {"line": 7, "message": "the text is empty"}, {"pointer": "/columns/label", "message": "no such column"}]}"#;

    #[test]
    fn field_errors_are_shown_by_file_and_line() {
        let failure = Problem::from_response(422, REFUSED).to_error(Some("rows.csv"));
        let shown = "error: 2 rows cannot be used: correct them\nrows.csv:7: the text is empty\n  /columns/label: no such column";
        assert_eq!(failure.message().as_deref(), Some(shown));
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn proxy_error_page_is_not_shown() {
        let failure = Problem::from_response(502, b"<html>Bad Gateway</html>").to_error(None);
        assert!(failure.message().unwrap().contains("answered 502"));
        assert_eq!(failure.exit_code(), 1);
    }
}
