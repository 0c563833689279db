//! Every code of a diagnostic is documented in `docs/datasets.md` with a message that a file really gets. `ESPALIER_UPDATE_EXPECTED=1`
//! writes the messages.

mod samples;

use espalier_core::dataset::{self, Limits, MaxLength, Options, RequestedFormat, TokenCounter};
use espalier_core::error::Error;
use espalier_core::model::BaseModel;
use espalier_core::task::RowSchema;
use espalier_tensor::backend::candle::CandleBackend;
use samples::{Base, Sample, samples};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

const LIMITS: Limits = Limits { max_bytes: 100_000, max_rows: 2000, max_record_bytes: 8000, max_labels: 30 };

/// Kinds of codes in `diagnostics.rs`, by the comment before them, and the headings of their tables.
const KINDS: [(&str, &str); 3] = [
    ("// Errors of one row", "errors of rows"),
    ("// Errors of the file", "errors of the file"),
    ("// Warnings", "warnings"),
];

/// Codes of errors of rows that other modules define.
const OTHER_ROW_CODES: [&str; 2] = ["chat_template_refused", "nothing_to_learn"];

#[test]
fn every_code_is_documented_with_a_real_message() {
    let base = |path: &str| {
        let folder = espalier_testing::workspace().join("tests/fixtures").join(path);
        BaseModel::load(&folder, path, Arc::new(CandleBackend::cpu())).unwrap()
    };
    let (encoder, decoder) = (base("tiny-bert"), base("decoders/qwen3"));
    let mut messages: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut others = Vec::new();
    for sample in samples() {
        let base = if sample.base == Base::Encoder { &encoder } else { &decoder };
        match message(&sample, base) {
            Ok(message) => messages.entry(sample.code).or_default().push(message),
            Err(other) => others.push((sample.code, other)),
        }
    }
    assert!(others.is_empty(), "samples that do not get their code: {others:#?}");
    let page = espalier_testing::workspace().join("docs/datasets.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let mut updated = text.clone();
    for (heading, codes) in codes_by_kind() {
        updated = with_table(&updated, heading, &codes, &mut messages);
    }
    assert!(messages.is_empty(), "no such codes: {messages:?}");
    if std::env::var_os("ESPALIER_UPDATE_EXPECTED").is_some() {
        std::fs::write(page, updated).unwrap();
    } else {
        let different = text.lines().zip(updated.lines()).find(|(old, new)| old != new);
        assert!(text == updated, "docs/datasets.md is out of date: run `make expected` and commit it: {different:#?}");
    }
}

/// First message of the code for the sample, with its line; what the sample gets in place of it.
fn message(sample: &Sample, base: &BaseModel) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(sample.file_name);
    std::fs::write(&path, &sample.content).unwrap();
    let named = (Some(sample.file_name), None);
    let options = match dataset::detect_options(&path, &RequestedFormat::default(), named, &LIMITS) {
        Ok(options) => options,
        Err(Error::Invalid(problem)) if problem.code == sample.code => return Ok(problem.detail),
        Err(error) => return Err(error.to_string()),
    };
    let mut settings = serde_json::to_value(options).unwrap();
    settings.as_object_mut().unwrap().extend(sample.settings.as_object().unwrap().clone());
    let options: Options = serde_json::from_value(settings).unwrap();
    let task = dataset::infer_schema(&path, &options, &RowSchema::DETECTABLE, &LIMITS).unwrap().default_task();
    let longest = base.info().max_tokens;
    let max_length = match task.is_generative() {
        true => MaxLength::Fixed(longest),
        false => MaxLength::Covering { min: task.defaults().max_length },
    };
    let counter = TokenCounter { tokenizer: base.tokenizer(), task: &task, max_length, longest };
    let mut checked = dataset::validate(&path, &options, &task, &counter, &LIMITS).unwrap();
    if sample.code == "unknown_label" {
        dataset::check_validation_labels(&mut checked, &["a".to_string(), "b".to_string()]);
    }
    if sample.code == "shared_with_validation" {
        checked.report.warn_about_shared_examples(2, 120);
    }
    let mut findings = checked.report.errors.iter().chain(&checked.report.warnings);
    let found = findings.find(|finding| finding.code == sample.code);
    let found = found.ok_or_else(|| format!("{:?} {:?}", checked.report.errors, checked.report.warnings))?;
    let line = found.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    Ok(format!("{line}{}", found.message))
}

/// Codes of each kind, in the order of their names.
fn codes_by_kind() -> Vec<(&'static str, Vec<String>)> {
    let source = include_str!("../../../src/dataset/diagnostics.rs");
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    for line in source.lines() {
        if let Some((_, heading)) = KINDS.iter().find(|(comment, _)| line.starts_with(comment)) {
            kinds.push((heading, Vec::new()));
        }
        if let (Some((_, codes)), Some((_, code))) = (kinds.last_mut(), line.split_once(": &str = \"")) {
            codes.push(code.trim_end_matches("\";").to_string());
        }
    }
    assert_eq!(kinds.len(), KINDS.len());
    kinds[0].1.extend(OTHER_ROW_CODES.map(str::to_string));
    kinds.iter_mut().for_each(|(_, codes)| codes.sort());
    kinds
}

/// The page with the table of these codes between its marks. Takes their messages.
fn with_table(page: &str, heading: &str, codes: &[String], messages: &mut BTreeMap<&str, Vec<String>>) -> String {
    let (start, end) = (format!("<!-- {heading} -->\n"), format!("<!-- end of {heading} -->"));
    let (before, rest) = page.split_once(&start).unwrap_or_else(|| panic!("docs/datasets.md has no {start}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/datasets.md has no {end}"));
    let mut table = "| code | such as |\n|---|---|\n".to_string();
    for code in codes {
        let messages = messages.remove(code.as_str()).unwrap_or_else(|| panic!("no sample has the code {code}"));
        writeln!(table, "| `{code}` | {} |", messages.join("<br>").replace('|', "\\|").replace('\n', " ")).unwrap();
    }
    format!("{before}{start}{table}{end}{after}")
}
