//! Detection of a file's format, separator, quotes and encoding from its content.

mod bytes;
mod json_conversions;
mod json_scan;
mod json_structure;
mod line_formats;
mod named_texts;
mod table;

use super::content::{Content, ContentKind, RawContent};
use super::diagnostics::{self, Diagnostic};
use super::format::Format;
use super::options::{Limits, Options, RequestedFormat};
use crate::error::{Context, Error, Result};
use std::io;
use std::path::Path;

pub(super) use json_structure::{RowsPosition, find_rows};
pub(super) use line_formats::{CONLL_DOCUMENT, FASTTEXT_LABEL, conll_columns};
pub(super) use table::skip_separator_line;

/// Finds out how a file is read. What the request says is not looked for, with one exception: the content distinguishes JSON lines from
/// other JSON.
///
/// # Errors
/// `Invalid` for a file whose format is not read, with its conversion (`unknown_format`), for damaged and for too large files, and
/// for settings that contradict each other; `Internal` if the file cannot be read from disk.
pub fn detect_options(
    path: &Path,
    requested: &RequestedFormat,
    (file_name, content_type): (Option<&str>, Option<&str>),
    limits: &Limits,
) -> Result<Options> {
    let named_format = Format::from_metadata(file_name, content_type);
    detect(path, requested, named_format, limits.max_bytes)
        .with_context(|| format!("reading the dataset {}", path.display()))?
        .map_err(|diagnostic| Error::invalid(diagnostic.code, diagnostic.message))
}

fn detect(
    path: &Path,
    requested: &RequestedFormat,
    named_format: Option<Format>,
    max_bytes: u64,
) -> io::Result<std::result::Result<Options, Diagnostic>> {
    let mut raw = match RawContent::open(path, max_bytes)? {
        Ok(raw) => raw,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    let binary_format = match raw.kind()? {
        Ok(ContentKind::Parquet) => Some(Format::Parquet),
        Ok(ContentKind::Xlsx) => Some(Format::Xlsx),
        Ok(ContentKind::Text) => None,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    if let Some(format) = binary_format {
        return Ok(binary_options(format, requested));
    }
    let encoding = match requested.encoding {
        Some(encoding) => Some(encoding),
        None => raw.detect_encoding()?,
    };
    let content = match raw.into_text(encoding)? {
        Ok(content) => content,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    let format = match detect_format(&content, requested, named_format)? {
        Ok(format) => format,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    let mut options = Options { encoding, ..Options::new(format) };
    match format.default_separator() {
        Some(_) => table::detect_columns(&content, requested, &mut options)?,
        None if requested.separator.is_some() || requested.quoting.is_some() => {
            return Ok(Err(contradiction(
                "`separator` and `quoting` are settings of files with columns, and the file is not one",
            )));
        }
        None => {}
    }
    Ok(Ok(options))
}

fn binary_options(format: Format, requested: &RequestedFormat) -> std::result::Result<Options, Diagnostic> {
    let name = if format == Format::Parquet { "a Parquet file" } else { "an Excel workbook" };
    if requested.format.is_some_and(|requested| requested != format) {
        return Err(contradiction(&format!("`format` does not fit: the file is {name}")));
    }
    if requested.separator.is_some() || requested.quoting.is_some() || requested.encoding.is_some() {
        return Err(contradiction(&format!("{name} has no separator, quotes or encoding: leave these settings out")));
    }
    Ok(Options::new(format))
}

/// Format of a text.
fn detect_format(
    content: &Content,
    requested: &RequestedFormat,
    named_format: Option<Format>,
) -> io::Result<std::result::Result<Format, Diagnostic>> {
    match requested.format {
        Some(Format::Parquet) => {
            return Ok(Err(contradiction("`format` is \"parquet\", and the file is no Parquet file")));
        }
        Some(Format::Xlsx) => return Ok(Err(contradiction("`format` is \"xlsx\", and the file is no Excel workbook"))),
        Some(Format::Csv) if requested.separator.is_none() => return Ok(Ok(Format::Csv)),
        Some(format @ (Format::Csv | Format::Tsv | Format::Conll | Format::Fasta | Format::Fasttext)) => {
            return Ok(Ok(format));
        }
        Some(Format::Jsonl | Format::Json) | None => {}
    }
    let sample = content.sample()?;
    let sample = text_start(&sample);
    let is_json_requested = matches!(requested.format, Some(Format::Jsonl | Format::Json));
    let is_json_named = matches!(named_format, Some(Format::Jsonl | Format::Json));
    if begins_json(sample) {
        return json_structure::detect_json(content, requested.format.or(named_format));
    }
    if is_json_requested || (is_json_named && requested.separator.is_none()) {
        return Ok(Ok(Format::Jsonl));
    }
    if requested.separator.is_some() {
        return Ok(Ok(Format::Csv));
    }
    // A few zero bytes in a file that says what it is are errors of their rows.
    let zeros = sample.iter().filter(|byte| **byte == 0).count();
    if zeros * 10 > sample.len() || (zeros > 0 && named_format.is_none()) {
        let message = "the file is binary, in a format that is not known: write its rows as CSV, JSON lines or Parquet";
        return Ok(Err(Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)));
    }
    let is_complete = content.sample()?.len() < super::content::SAMPLE_BYTES;
    if let Some(format) = line_formats::detect(sample, is_complete, named_format) {
        return Ok(Ok(format));
    }
    if let Some(diagnostic) = named_texts::refused_table(sample) {
        return Ok(Err(diagnostic));
    }
    match (named_format, table::detect_separator(sample)) {
        (Some(format @ (Format::Csv | Format::Tsv)), None) => Ok(Ok(format)),
        (_, Some(super::format::Separator::TAB)) => Ok(Ok(Format::Tsv)),
        (_, Some(_)) => Ok(Ok(Format::Csv)),
        _ => Ok(Err(named_texts::unknown_text(sample))),
    }
}

/// Whether a text begins with a brace, or with a bracket and what may follow it in JSON or Python.
fn begins_json(sample: &[u8]) -> bool {
    let text = sample.trim_ascii_start();
    match text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start) {
        Some(rest @ [b'[', ..]) => begins_json(rest),
        Some([first, ..]) => b"{]\"'-0123456789tfnNI".contains(first),
        Some([]) => true,
        None => text.starts_with(b"{"),
    }
}

/// Sample without byte order marks.
fn text_start(mut sample: &[u8]) -> &[u8] {
    while let Some(rest) = sample.strip_prefix(b"\xef\xbb\xbf") {
        sample = rest;
    }
    sample
}

fn contradiction(message: &str) -> Diagnostic {
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}
