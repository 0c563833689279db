//! Result of an upload over HTTP, in the words of the table.

use super::cases::Case;
use crate::api::request;
use crate::api::server_process::ServerProcess;
use espalier_core::dataset::Report;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Labels that are listed.
const MAX_LABELS: usize = 6;

/// Warnings about the invented content and the small vocabulary of the test's bases: only their number is listed.
const COUNTED_WARNINGS: [&str; 2] = ["duplicate", "unknown_tokens"];

pub struct Outcome {
    pub is_read: bool,
    pub result: String,
    pub sentences: Vec<String>,
    /// Report of a file that is read.
    pub report: Report,
    /// `detail` of a refusal, and its errors with their lines.
    pub detail: String,
    pub errors: Vec<(u64, String)>,
}

impl Outcome {
    pub fn of_upload(app: &ServerProcess, case: &Case) -> Self {
        let bytes = std::fs::read(case.path()).unwrap();
        let upload = match case.has_settings() {
            true => request::form("/datasets", ("options", &case.options), ("dataset", case.name(), &bytes)),
            false => {
                let disposition =
                    format!("content-disposition: form-data; name=\"dataset\"; filename=\"{}\"", case.name());
                request::parts("/datasets", &[(&disposition, &bytes)])
            }
        };
        let answer = upload.send(app);
        let body = answer.json();
        match answer.status {
            200 | 201 => Self::read(&body),
            400 | 413 | 415 | 422 => Self::refused(answer.status, &body),
            status => panic!("{}: {status} {body}", case.file),
        }
    }

    fn read(body: &Value) -> Self {
        let report: Report = serde_json::from_value(body["report"].clone()).unwrap();
        let mut format = body["options"]["format"].as_str().unwrap().to_string();
        for name in ["separator", "quoting", "encoding"] {
            if let Some(value) = body["options"][name].as_str() {
                format.push_str(&format!(", {name} `{value}`"));
            }
        }
        let target = json!(report.target);
        let rows = match report.rows == report.examples {
            true => report.rows.to_string(),
            false => format!("{} of {}", report.examples, report.rows),
        };
        Self {
            is_read: true,
            result: format!("{rows} rows, `{}`, {format}", target.as_str().unwrap()),
            sentences: sentences(&report),
            report,
            detail: String::new(),
            errors: Vec::new(),
        }
    }

    fn refused(status: u16, body: &Value) -> Self {
        let detail = body["detail"].as_str().unwrap().to_string();
        let errors: Vec<(u64, String)> = body["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| (error["line"].as_u64().unwrap_or_default(), error["message"].as_str().unwrap().to_string()))
            .collect();
        let mut sentences = vec![detail.clone()];
        sentences.extend(errors.first().map(|(line, message)| format!("line {line}: {message}")));
        if errors.len() > 1 {
            sentences.push(format!("and {} more", errors.len() - 1));
        }
        let result = format!("{status} `{}`", body["code"].as_str().unwrap());
        Self { is_read: false, result, sentences, report: Report::default(), detail, errors }
    }
}

/// What the report says: mapping, labels, and the first warning of each kind.
fn sentences(report: &Report) -> Vec<String> {
    let mut sentences = report.mapping.clone();
    if !report.unread_columns.is_empty() {
        sentences.push(format!("not read: {}", report.unread_columns.join(", ")));
    }
    sentences.extend(report.left_out.iter().map(|(reason, count)| format!("left out for {reason}: {count}")));
    let mut labels: Vec<String> =
        report.labels.iter().take(MAX_LABELS).map(|label| format!("{} {}", label.label, label.count)).collect();
    if report.labels.len() > MAX_LABELS {
        labels.push(format!("{} in all", report.labels.len()));
    }
    if !labels.is_empty() {
        sentences.push(format!("labels: {}", labels.join(", ")));
    }
    let mut codes = BTreeSet::new();
    for warning in report.warnings.iter().filter(|warning| codes.insert(warning.code.as_str())) {
        let line = warning.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let count = report.warning_counts[&warning.code];
        if COUNTED_WARNINGS.contains(&warning.code.as_str()) {
            sentences.push(format!("warning `{}` ({count})", warning.code));
            continue;
        }
        sentences.push(format!("warning `{}` ({count}): {line}{}", warning.code, warning.message));
    }
    sentences
}
