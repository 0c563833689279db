//! Validation of a file, and what must hold for every file.

use crate::settings::Settings;
use crate::token_counter::WordCounter;
use espalier_core::dataset::{self, Limits, LocatedDiagnostic, Options, Report, RequestedFormat, ValidatedDataset};
use espalier_core::error::Error;
use espalier_core::task::RowSchema;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::LazyLock;

const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_rows: 10_000, max_record_bytes: 1 << 20, max_labels: 1000 };

/// Errors, and warnings, that a report lists.
const MAX_LISTED: usize = 100;
/// Size of a report as JSON.
const MAX_REPORT_BYTES: usize = 4 << 20;

/// File of this process, in memory where the system has such a folder.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let folder = match env::var_os("TMPDIR") {
        None if memory.is_dir() => memory.to_path_buf(),
        _ => env::temp_dir(),
    };
    folder.join(format!("espalier-fuzz-{}", process::id()))
});

/// Reads `file` as the service reads an upload.
pub fn validate(file: &[u8], settings: &Settings, requested: &RequestedFormat, file_name: Option<&str>) {
    let path = FILE.as_path();
    fs::write(path, file).expect("the file of the process can be written");
    let mut options = match dataset::detect_options(path, requested, (file_name, None), &LIMITS) {
        Ok(options) => options,
        Err(Error::Invalid(problem)) => {
            assert!(!problem.detail.is_empty(), "an error without a sentence");
            return;
        }
        Err(error) => panic!("an input is no failure of the disk: {error}"),
    };
    settings.complete(&mut options);
    check_stored(&options);
    let schema = match settings.schema() {
        Some(schema) => schema,
        None => dataset::infer_schema(path, &options, &RowSchema::DETECTABLE, &LIMITS)
            .expect("the schema of a readable file is inferred"),
    };
    let counter = WordCounter { max_length: settings.max_length() };
    let validated = dataset::validate(path, &options, &schema.default_task(), &counter, &LIMITS)
        .expect("errors of a readable file are in the report");
    check(&validated);
}

/// A job stores the options of its file.
fn check_stored(options: &Options) {
    let stored = serde_json::to_string(options).expect("options are JSON");
    let read: Options = serde_json::from_str(&stored).expect("stored options are read");
    assert_eq!(&read, options);
}

fn check(validated: &ValidatedDataset) {
    let ValidatedDataset { examples, report } = validated;
    assert_eq!(report.examples, examples.len() as u64);
    assert!(report.examples <= report.rows && report.rows <= LIMITS.max_rows);
    assert!(report.error_count > 0 || report.examples > 0, "neither an example nor an error");
    assert!(examples.is_sorted_by_key(|example| example.line), "examples are not in the order of the file");
    check_listed(&report.errors, report.error_count);
    check_listed(&report.warnings, report.warning_counts.values().sum());
    check_size(report);
    if let Some(error) = report.to_error() {
        assert!(matches!(error, Error::Invalid(problem) if !problem.detail.is_empty()));
    }
}

/// Diagnostics of the whole file come first, the others in the order of their lines.
fn check_listed(diagnostics: &[LocatedDiagnostic], count: u64) {
    assert!(diagnostics.len() <= MAX_LISTED && diagnostics.len() as u64 <= count);
    assert!(diagnostics.is_sorted_by_key(|diagnostic| diagnostic.line), "diagnostics are not in the order of the file");
    assert!(diagnostics.iter().all(|diagnostic| !diagnostic.message.is_empty()));
}

/// A report is stored and sent as JSON, so its numbers are finite.
fn check_size(report: &Report) {
    let json = serde_json::to_string(report).expect("reports are JSON");
    assert!(json.len() <= MAX_REPORT_BYTES, "a report of {} bytes", json.len());
    let read: Report = serde_json::from_str(&json).expect("stored reports are read");
    assert_eq!(&read, report);
}
