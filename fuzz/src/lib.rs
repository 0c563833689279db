//! Fuzz targets of the dataset readers: a file is detected, its schema inferred and its rows validated, as in the service.
//!
//! The first bytes of an input choose the settings; the rest is the file.

mod settings;
mod token_counter;
mod validation;
mod workbook;

use espalier_core::dataset::{Format, RequestedFormat};
use settings::Settings;
use std::panic;
use std::thread;
use validation::validate;

/// Threads whose panics the readers catch: the decoders of these formats may panic on damaged files.
const DECODER_THREADS: [&str; 2] = ["parquet", "workbook"];

/// Lets the readers catch the panics of their decoders; every other panic aborts the process.
pub fn set_panic_hook() {
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !thread::current().name().is_some_and(|name| DECODER_THREADS.contains(&name)) {
            abort(info);
        }
    }));
}

/// A file of which nothing is known but perhaps its name.
pub fn any(input: &[u8]) {
    if let Some((settings, file)) = Settings::split_from(input) {
        validate(file, &settings, &RequestedFormat::default(), settings.file_name());
    }
}

pub fn conll(input: &[u8]) {
    validate_as(Format::Conll, input);
}

/// Text in an encoding that is requested, or guessed.
pub fn encodings(input: &[u8]) {
    if let Some((settings, file)) = Settings::split_from(input) {
        let requested = RequestedFormat { encoding: settings.encoding(), ..RequestedFormat::default() };
        validate(file, &settings, &requested, Some("rows.csv"));
    }
}

pub fn fasta(input: &[u8]) {
    validate_as(Format::Fasta, input);
}

pub fn fasttext(input: &[u8]) {
    validate_as(Format::Fasttext, input);
}

pub fn json(input: &[u8]) {
    validate_as(Format::Json, input);
}

pub fn json_lines(input: &[u8]) {
    validate_as(Format::Jsonl, input);
}

/// A gzip file or a zip archive.
pub fn packed(input: &[u8]) {
    if let Some((settings, file)) = Settings::split_from(input) {
        validate(file, &settings, &RequestedFormat::default(), Some("rows.csv"));
    }
}

pub fn parquet(input: &[u8]) {
    validate_as(Format::Parquet, input);
}

/// Comma-separated values and their relatives.
pub fn table(input: &[u8]) {
    if let Some((settings, file)) = Settings::split_from(input) {
        let requested = RequestedFormat {
            format: Some(settings.table_format()),
            separator: settings.separator(),
            quoting: settings.quoting(),
            encoding: None,
        };
        validate(file, &settings, &requested, None);
    }
}

/// A workbook, or the parts of one, which are packed without checksums that a mutation would break.
pub fn xlsx(input: &[u8]) {
    let Some((settings, file)) = Settings::split_from(input) else { return };
    let requested = RequestedFormat { format: Some(Format::Xlsx), ..RequestedFormat::default() };
    if file.starts_with(b"PK") {
        validate(file, &settings, &requested, None);
    } else if let Some(packed) = workbook::pack(file) {
        validate(&packed, &settings, &requested, None);
    }
}

fn validate_as(format: Format, input: &[u8]) {
    if let Some((settings, file)) = Settings::split_from(input) {
        let requested = RequestedFormat { format: Some(format), ..RequestedFormat::default() };
        validate(file, &settings, &requested, None);
    }
}
