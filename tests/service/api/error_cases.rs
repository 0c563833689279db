//! Properties of every error response: it is a problem document, it is not logged as an internal error, and the request stores
//! nothing.

use crate::api::request::{Request, get};
use crate::api::server_process::{HttpResponse, ServerProcess};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Request with its expected error response.
pub struct ErrorCase {
    name: String,
    request: Request,
    status: u16,
    code: &'static str,
    /// Text that `detail` contains.
    expected_text: String,
    /// Location of the first field error, and text that its message contains.
    expected_error: Option<(Value, String)>,
    /// Response header, and text that it contains.
    header: Option<(&'static str, &'static str)>,
}

pub fn error_case(
    name: impl Into<String>,
    request: Request,
    status: u16,
    code: &'static str,
    expected: &str,
) -> ErrorCase {
    ErrorCase {
        name: name.into(),
        request,
        status,
        code,
        expected_text: expected.to_string(),
        expected_error: None,
        header: None,
    }
}

impl ErrorCase {
    /// Expects the first field error at this JSON pointer, with the detail's text in its message.
    pub fn with_pointer(self, pointer: &str) -> Self {
        let expected = self.expected_text.clone();
        Self { expected_error: Some((serde_json::json!({"pointer": pointer}), expected)), ..self }
    }

    /// Expects the first field error at this JSON pointer, with the text in its message.
    pub fn with_pointer_and_message(self, pointer: &str, expected: &str) -> Self {
        Self { expected_error: Some((serde_json::json!({"pointer": pointer}), expected.to_string())), ..self }
    }

    pub fn with_response_header(self, name: &'static str, expected: &'static str) -> Self {
        Self { header: Some((name, expected)), ..self }
    }

    /// Expects the first field error at this line of the file, or of the file as a whole.
    pub fn with_line(self, line: Option<u64>, expected: &str) -> Self {
        match line {
            Some(line) => {
                Self { expected_error: Some((serde_json::json!({"line": line}), expected.to_string())), ..self }
            }
            None => Self { expected_text: expected.to_string(), ..self },
        }
    }
}

/// Sends every case, panics with all unexpected responses, and returns the number of cases.
pub fn check_cases(app: &ServerProcess, cases: Vec<ErrorCase>) -> usize {
    let count = cases.len();
    let names: BTreeSet<String> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), count, "two cases have the same name");
    let mut failures = Vec::new();
    let mut state_before = server_state(app);
    for case in cases {
        let (name, request) = (case.name.clone(), case.request.clone());
        let answer = request.send(app);
        let mut mismatches_found = mismatches(&answer, &case);
        let state_after = server_state(app);
        // The files of a finished job may still be in deletion.
        let is_being_removed = |entry: &String| !state_after.contains(entry) && entry.contains("/temporary/");
        if state_before.symmetric_difference(&state_after).any(|entry| !is_being_removed(entry)) {
            mismatches_found.push(format!("stored data changed: {}", state_diff(&state_before, &state_after)));
        }
        state_before = state_after;
        failures.extend(
            (!mismatches_found.is_empty())
                .then(|| format!("{name}: {}\n    {}", mismatches_found.join("; "), answer.text())),
        );
    }
    assert!(failures.is_empty(), "{} of {count} cases:\n{}", failures.len(), failures.join("\n"));
    assert_no_errors_logged(app);
    count
}

/// Returns how the response differs from the expected error.
fn mismatches(answer: &HttpResponse, case: &ErrorCase) -> Vec<String> {
    let ErrorCase { status, code, expected_text: expected, .. } = case;
    let mut mismatches = Vec::new();
    let mut expect = |holds: bool, mismatch: String| {
        if !holds {
            mismatches.push(mismatch);
        }
    };
    expect(answer.status == *status, format!("status {} instead of {status}", answer.status));
    expect((400..500).contains(&answer.status), "no 4xx".to_string());
    let content_type = answer.header("content-type");
    expect(content_type == Some("application/problem+json"), format!("content type {content_type:?}"));
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |field: &str| problem[field].as_str().unwrap_or_default().to_string();
    expect(text("code") == *code, format!("code {} instead of {code}", problem["code"]));
    expect(text("type") == format!("urn:espalier:problem:{code}"), format!("type {}", problem["type"]));
    expect(!text("title").is_empty(), "no title".to_string());
    expect(problem["status"] == answer.status, format!("status {} in the body", problem["status"]));
    expect(Some(text("request_id").as_str()) == answer.header("x-request-id"), "no request id".to_string());
    expect(text("detail").contains(expected.as_str()), format!("no \"{expected}\" in the detail"));
    expect(text("detail").len() >= 20, "a detail that says too little".to_string());
    if let Some((place, expected_message)) = &case.expected_error {
        let first = &problem["errors"][0];
        let is_at_location =
            place.as_object().is_some_and(|place| place.iter().all(|(key, value)| first[key] == *value));
        expect(is_at_location, format!("the first error is not at {place}"));
        let message = first["message"].as_str().unwrap_or_default();
        expect(
            message.contains(expected_message.as_str()),
            format!("no \"{expected_message}\" in the first error's message"),
        );
    }
    if let Some((name, expected)) = case.header {
        let value = answer.header(name);
        expect(value.is_some_and(|value| value.contains(expected)), format!("the header {name} is {value:?}"));
    }
    mismatches
}

/// All files of the data folder except the database and locks, and the lists of the API.
pub fn server_state(app: &ServerProcess) -> BTreeSet<String> {
    let mut state = BTreeSet::new();
    collect_files(&app.setup.data_dir(), &mut state);
    for list in ["jobs", "datasets", "adapters"] {
        let answer = get(format!("/{list}?limit=100")).send(app);
        let rows = answer.json()["data"].as_array().cloned().unwrap_or_default();
        state.extend(rows.iter().map(|row| format!("{list}: {row}")));
    }
    state
}

fn collect_files(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => {
                found.insert(path.display().to_string());
                collect_files(&path, found);
            }
            false if name.starts_with("espalier.db") || name.contains("lock") => {}
            false => {
                found.insert(path.display().to_string());
            }
        }
    }
}

fn state_diff(before: &BTreeSet<String>, after: &BTreeSet<String>) -> String {
    let new = after.difference(before).map(|entry| format!("+ {entry}"));
    let gone = before.difference(after).map(|entry| format!("- {entry}"));
    new.chain(gone).collect::<Vec<_>>().join(", ")
}

/// Checks that the log has no error and no panic.
pub fn assert_no_errors_logged(app: &ServerProcess) {
    let marker = "everything-before-this-was-logged";
    get("/base").with_header("x-request-id", marker).send(app);
    app.wait_for_log(marker);
    let is_error = |line: &String| line.contains("\"ERROR\"") || line.contains("panicked");
    let errors: Vec<String> = app.log().into_iter().filter(is_error).collect();
    assert!(errors.is_empty(), "logged errors:\n{}", errors.join("\n"));
}
