//! Out: the three files as they are, or AdapterHub's four, and who made them, when and how fast beside them.

use crate::artifact::{BaseSummary, adapterhub, folder};
use crate::error::{Context, Result};
use serde_json::{Value, json};
use std::io::{Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// What SQL knows of the adapter and its folder must not hold.
pub const PROVENANCE_FILE: &str = "provenance.json";

/// Writes the zip: equal files and provenance give equal bytes.
///
/// # Errors
/// `Conflict` (`adapter_damaged`) where a file of the folder is missing or they are not those of its version.
pub fn write_peft_zip(version_dir: &Path, version: &str, provenance: &Value, out: impl Write + Seek) -> Result<()> {
    write_zip(&folder::load_intact_files(version_dir, version)?.named_files(), version, provenance, out)
}

/// The same in AdapterHub's form, where the adapter is called `name`.
///
/// # Errors
/// `Conflict` as for [`folder::read`], `Invalid` (`unsupported_format`) where AdapterHub has no word for it.
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

/// Trained numbers hardly compress.
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
