//! The same check with the command line, and its comparison with the result over HTTP.

use super::cases::Case;
use super::outcome::Outcome;
use crate::api::server_process::ServerProcess;
use crate::cli::run::run;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Exit code and output of `espalier train`.
pub struct Printed {
    code: i32,
    /// Standard output of a success, standard error of a refusal, with the file's name in place of its path.
    pub text: String,
}

pub fn run_train(app: &ServerProcess, case: &Case) -> Printed {
    let (path, server, flags) = (case.path(), app.url(""), case.flags());
    let path = path.to_str().unwrap();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let output = run(&[&["train", path, "--validate-only", "--server", &server], flags.as_slice()].concat());
    let text = if output.code == 0 { output.out } else { output.err };
    Printed { code: output.code, text: text.replace(path, case.name()) }
}

/// Checks that both results agree; returns what the command line says in other words.
pub fn compare(case: &Case, http: &Outcome, printed: &Printed) -> Vec<String> {
    let Printed { code, text } = printed;
    assert_eq!(*code, if http.is_read { 0 } else { 2 }, "{}: {text}\n{}", case.file, http.sentences.join("\n"));
    check_advice(case, text);
    if http.is_read { compare_report(case, http, text) } else { compare_refusal(case, http, text) }
}

/// Checks that the advice names flags of the command and no request fields.
fn check_advice(case: &Case, text: &str) {
    static FLAGS: LazyLock<BTreeSet<String>> = LazyLock::new(|| flags_in(&run(&["train", "--help"]).success_stdout()));
    let unknown: Vec<String> = flags_in(text).difference(&FLAGS).cloned().collect();
    assert_eq!(unknown, [""; 0], "{}: flags that the command does not have: {text}", case.file);
    for field in ["`\"", "`{\"", "/datasets", "the job"] {
        assert!(!text.contains(field), "{}: {field} is no advice for the command line: {text}", case.file);
    }
}

fn flags_in(text: &str) -> BTreeSet<String> {
    let is_flag_character = |character: char| character.is_ascii_lowercase() || character == '-';
    let words = text.split(|character| !is_flag_character(character));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_string).collect()
}

fn compare_report(case: &Case, http: &Outcome, text: &str) -> Vec<String> {
    let report = &http.report;
    let head = format!("{}: {} rows, {} examples", case.name(), report.rows, report.examples);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with(&head), "{}: {first}, and not {head}", case.file);
    let mapped = lines.zip(&report.mapping).filter_map(|(line, sentence)| {
        let line = line.trim_start();
        (line != sentence).then(|| other_words(line, sentence))
    });
    let warnings = text.lines().filter_map(|line| line.strip_prefix("  warning: "));
    let said = |warning: &&str| {
        let is_said = |message: &str| warning.ends_with(message);
        report.warnings.iter().any(|known| is_said(&known.message)) || warning.contains(" more; in all: ")
    };
    mapped.chain(warnings.filter(|warning| !said(warning)).take(1).map(|warning| other_words(warning, ""))).collect()
}

fn compare_refusal(case: &Case, http: &Outcome, text: &str) -> Vec<String> {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut expected = vec![http.detail.clone()];
    expected.extend(http.errors.iter().map(|(line, message)| format!("{}:{line}: {message}", case.name())));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{}: {text}", case.file);
    let different = lines.iter().zip(&expected).find(|(line, expected)| line != expected);
    different.map(|(line, expected)| other_words(line, expected)).into_iter().collect()
}

/// The quoted words of a line that the other one does not have; the line if there are none.
fn other_words(line: &str, other: &str) -> String {
    let words: Vec<String> = line.split('`').skip(1).step_by(2).map(|word| format!("`{word}`")).collect();
    let different: Vec<String> = words.into_iter().filter(|word| !other.contains(word.as_str())).collect();
    if different.is_empty() { line.to_string() } else { different.join(", ") }
}
