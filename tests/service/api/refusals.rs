//! What holds for every refusal: it is a problem that says what to do, it is no error of ours in the log, and it leaves
//! nothing behind. Knows no single case.

use crate::api::app::{Answer, App};
use crate::api::request::{Request, get};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A request, and how it must be refused.
pub struct Case {
    name: String,
    request: Request,
    status: u16,
    code: &'static str,
    /// Held by `detail`.
    word: String,
    /// The place of the first fault, and a word that its message holds.
    fault: Option<(Value, String)>,
    /// A header, and a word that it holds.
    header: Option<(&'static str, &'static str)>,
}

pub fn case(name: impl Into<String>, request: Request, status: u16, code: &'static str, word: &str) -> Case {
    Case { name: name.into(), request, status, code, word: word.to_string(), fault: None, header: None }
}

impl Case {
    /// The first fault is at this JSON pointer, and its message holds the detail's word too.
    pub fn at(self, pointer: &str) -> Self {
        let word = self.word.clone();
        Self { fault: Some((serde_json::json!({"pointer": pointer}), word)), ..self }
    }

    /// The first fault is at this JSON pointer, and its message holds the word.
    pub fn at_fault(self, pointer: &str, word: &str) -> Self {
        Self { fault: Some((serde_json::json!({"pointer": pointer}), word.to_string())), ..self }
    }

    pub fn with_header(self, name: &'static str, word: &'static str) -> Self {
        Self { header: Some((name, word)), ..self }
    }

    /// The first fault is at this line of the file, or about the whole of it.
    pub fn at_line(self, line: Option<u64>, word: &str) -> Self {
        match line {
            Some(line) => Self { fault: Some((serde_json::json!({"line": line}), word.to_string())), ..self },
            None => Self { word: word.to_string(), ..self },
        }
    }
}

/// Sends every case and tells of all that were answered otherwise. Answers how many there were.
pub fn check(app: &App, cases: Vec<Case>) -> usize {
    let count = cases.len();
    let names: BTreeSet<String> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), count, "two cases have the same name");
    let mut wrong = Vec::new();
    let mut before = scene(app);
    for case in cases {
        let (name, request) = (case.name.clone(), case.request.clone());
        let answer = request.send(app);
        let mut faults = judge(&answer, &case);
        let after = scene(app);
        // The files of a job that has ended may be on their way out.
        let is_going = |entry: &String| !after.contains(entry) && entry.contains("/temporary/");
        if before.symmetric_difference(&after).any(|entry| !is_going(entry)) {
            faults.push(format!("something is left behind: {}", difference(&before, &after)));
        }
        before = after;
        wrong.extend((!faults.is_empty()).then(|| format!("{name}: {}\n    {}", faults.join("; "), answer.text())));
    }
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    quiet(app);
    count
}

/// What is wrong with this answer, as a refusal.
fn judge(answer: &Answer, case: &Case) -> Vec<String> {
    let Case { status, code, word, .. } = case;
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    must(answer.status == *status, format!("status {} instead of {status}", answer.status));
    must((400..500).contains(&answer.status), "no 4xx".to_string());
    let content_type = answer.header("content-type");
    must(content_type == Some("application/problem+json"), format!("content type {content_type:?}"));
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |field: &str| problem[field].as_str().unwrap_or_default().to_string();
    must(text("code") == *code, format!("code {} instead of {code}", problem["code"]));
    must(text("type") == format!("urn:espalier:problem:{code}"), format!("type {}", problem["type"]));
    must(!text("title").is_empty(), "no title".to_string());
    must(problem["status"] == answer.status, format!("status {} in the body", problem["status"]));
    must(Some(text("request_id").as_str()) == answer.header("x-request-id"), "no request id".to_string());
    must(text("detail").contains(word.as_str()), format!("no \"{word}\" in the detail"));
    must(text("detail").len() >= 20, "a detail that says too little".to_string());
    if let Some((place, said)) = &case.fault {
        let first = &problem["errors"][0];
        let there = place.as_object().is_some_and(|place| place.iter().all(|(key, value)| first[key] == *value));
        must(there, format!("the first fault is not at {place}"));
        let message = first["message"].as_str().unwrap_or_default();
        must(message.contains(said.as_str()), format!("no \"{said}\" in the first fault's message"));
    }
    if let Some((name, word)) = case.header {
        let value = answer.header(name);
        must(value.is_some_and(|value| value.contains(word)), format!("the header {name} is {value:?}"));
    }
    wrong
}

/// Every file of the data folder but the database and the locks, and the lists as clients see them.
pub fn scene(app: &App) -> BTreeSet<String> {
    let mut scene = BTreeSet::new();
    files(&app.setup.data(), &mut scene);
    for list in ["jobs", "datasets", "adapters"] {
        let answer = get(format!("/{list}?limit=100")).send(app);
        let rows = answer.json()["data"].as_array().cloned().unwrap_or_default();
        scene.extend(rows.iter().map(|row| format!("{list}: {row}")));
    }
    scene
}

fn files(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => {
                found.insert(path.display().to_string());
                files(&path, found);
            }
            false if name.starts_with("espalier.db") || name.contains("lock") => {}
            false => {
                found.insert(path.display().to_string());
            }
        }
    }
}

fn difference(before: &BTreeSet<String>, after: &BTreeSet<String>) -> String {
    let new = after.difference(before).map(|entry| format!("+ {entry}"));
    let gone = before.difference(after).map(|entry| format!("- {entry}"));
    new.chain(gone).collect::<Vec<_>>().join(", ")
}

/// Nothing was logged as an error or a panic so far.
pub fn quiet(app: &App) {
    let marker = "everything-before-this-was-logged";
    get("/base").with("x-request-id", marker).send(app);
    app.wait_for_log(marker);
    let loud = |line: &String| line.contains("\"ERROR\"") || line.contains("panicked");
    let loud: Vec<String> = app.log().into_iter().filter(loud).collect();
    assert!(loud.is_empty(), "logged as our fault:\n{}", loud.join("\n"));
}
