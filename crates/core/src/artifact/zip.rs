//! Writes an adapter as a zip: its three files (AdapterHub's four) and `provenance.json`.

use crate::artifact::adapterhub;
use crate::artifact::base::BaseSummary;
use crate::artifact::folder;
use crate::error::{Context, Result};
use serde_json::{Value, json};
use std::io::{Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Facts about the training run, which are not part of the version.
pub const PROVENANCE_FILE: &str = "provenance.json";

/// Writes a PEFT folder as a zip. Equal files and provenance give equal bytes.
///
/// # Errors
/// `Conflict` (`adapter_damaged`) if a file is missing or the hash is not the version.
pub fn write_peft_zip(version_dir: &Path, version: &str, provenance: &Value, out: impl Write + Seek) -> Result<()> {
    write_zip(&folder::load_intact_files(version_dir, version)?.named_files(), version, provenance, out)
}

/// Writes an adapter called `name` in AdapterHub's format.
///
/// # Errors
/// `Conflict` (`adapter_damaged`, `other_base`), `Invalid` (`unsupported_format`) if AdapterHub's format cannot express the adapter.
pub fn write_adapterhub_zip(
    root: &Path,
    version: &str,
    summary: &BaseSummary,
    name: &str,
    provenance: &Value,
    out: impl Write + Seek,
) -> Result<()> {
    let files =
        adapterhub::AdapterHubFiles::from_artifact(&folder::load_with_summary(root, version, summary)?, summary, name)?;
    write_zip(&files.named_files(), version, provenance, out)
}

fn write_zip(files: &[(&str, &[u8])], version: &str, provenance: &Value, out: impl Write + Seek) -> Result<()> {
    let mut provenance_json = json!({"provenance": provenance, "version": format!("sha256:{version}")});
    provenance_json.sort_all_objects();
    let about = serde_json::to_vec_pretty(&provenance_json).context("writing provenance.json")?;
    let mut zip = ZipWriter::new(out);
    for (name, bytes) in files.iter().chain([&(PROVENANCE_FILE, about.as_slice())]) {
        zip.start_file(*name, entry_options(name)).context("writing an adapter's zip")?;
        zip.write_all(bytes).context("writing an adapter's zip")?;
    }
    let mut out = zip.finish().context("writing an adapter's zip")?;
    out.flush().context("writing an adapter's zip")
}

/// Tensors are stored uncompressed, because trained weights hardly compress.
fn entry_options(name: &str) -> SimpleFileOptions {
    let method = match name.ends_with(".json") {
        true => CompressionMethod::Deflated,
        false => CompressionMethod::Stored,
    };
    SimpleFileOptions::default()
        .compression_method(method)
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o644)
}
