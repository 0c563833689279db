//! An adapter as a zip: extracts the files of an uploaded one, and writes one with an adapter's three files (AdapterHub's four) and
//! `provenance.json`.
//!
//! Files are written under fixed names, so no entry can leave the folder. Entries that would (`..`, absolute paths, links) are
//! rejected nevertheless, because no tool writes them by accident. Sizes are measured while unpacking; the declared ones are not used.

use crate::adapter::tensor_spec::CONFIG_FILE;
use crate::artifact::adapterhub;
use crate::artifact::base::BaseSummary;
use crate::artifact::folder::{self, WEIGHTS_FILE};
use crate::artifact::manifest::MANIFEST_FILE;
use crate::error::{Context, Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use zip::read::ZipFileEntry;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

#[cfg(test)]
mod tests;

/// Limits on the content of an uploaded zip.
#[derive(Debug, Clone, Copy)]
pub struct ImportLimits {
    /// Entries, folders and ignored files included.
    pub max_entries: usize,
    /// Unpacked bytes of one JSON file.
    pub max_json_bytes: u64,
    /// Unpacked bytes of one file of tensors.
    pub max_tensor_bytes: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { max_entries: 1000, max_json_bytes: 64 << 20, max_tensor_bytes: 512 << 20 }
    }
}

/// Index of every file in the zip, by its path.
type EntryIndex = BTreeMap<String, usize>;

/// Extracts `adapter_config.json`, `adapter_model.safetensors` and, if present, `espalier.json` to `target_dir`; or AdapterHub's four
/// files. They may be in a folder of the zip. Other files are ignored.
///
/// # Errors
/// `Invalid` (`unreadable_adapter`) with the reason; `unsupported_adapter` if the tensors are pickled.
pub fn unpack(file: File, target_dir: &Path, limits: &ImportLimits) -> Result<()> {
    let mut archive = ZipArchive::new(file).map_err(|error| invalid_zip(format!("it is not a zip ({error})")))?;
    if archive.len() > limits.max_entries {
        let max_entries = limits.max_entries;
        return Err(invalid_zip(format!("it holds {} entries, at most {max_entries} are accepted", archive.len())));
    }
    if archive.has_duplicate_names() {
        return Err(invalid_zip("it holds the same name twice".to_string()));
    }
    let entry_index = index_entries(&mut archive)?;
    let adapter_dir = find_adapter_dir(&entry_index)?;
    let contains = |name: &str| entry_index.contains_key(&format!("{adapter_dir}{name}"));
    let is_adapterhub = !contains(WEIGHTS_FILE) && !contains(MANIFEST_FILE) && contains(adapterhub::WEIGHTS_FILE);
    if let Some(pickle) = adapterhub::PICKLE_FILES.iter().find(|name| contains(name) && !contains(WEIGHTS_FILE)) {
        return Err(pickle_error(pickle, "save_adapter(…, use_safetensors=True)"));
    }
    if !is_adapterhub && !contains(WEIGHTS_FILE) {
        return Err(match contains("adapter_model.bin") {
            true => pickle_error("adapter_model.bin", "save_pretrained(…, safe_serialization=True)"),
            false => invalid_zip(format!("it holds no {adapter_dir}{WEIGHTS_FILE}")),
        });
    }
    let (max_json_bytes, max_weights_bytes) = (limits.max_json_bytes, limits.max_tensor_bytes);
    let peft_files =
        [(CONFIG_FILE, max_json_bytes), (WEIGHTS_FILE, max_weights_bytes), (MANIFEST_FILE, max_json_bytes)];
    let adapterhub_files = [
        (CONFIG_FILE, max_json_bytes),
        (adapterhub::WEIGHTS_FILE, max_weights_bytes),
        (adapterhub::HEAD_CONFIG_FILE, max_json_bytes),
        (adapterhub::HEAD_WEIGHTS_FILE, max_weights_bytes),
    ];
    let expected_files = if is_adapterhub { adapterhub_files.as_slice() } else { peft_files.as_slice() };
    for (name, max_bytes) in expected_files {
        if let Some(index) = entry_index.get(&format!("{adapter_dir}{name}")) {
            extract_entry(&mut archive, *index, &target_dir.join(name), *max_bytes)?;
        }
    }
    Ok(())
}

fn index_entries(archive: &mut ZipArchive<File>) -> Result<EntryIndex> {
    let mut entries = EntryIndex::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(damaged_zip)?;
        let name = validated_name(&entry)?;
        if !entry.is_dir() {
            entries.insert(name, index);
        }
    }
    Ok(entries)
}

fn validated_name(entry: &ZipFileEntry) -> Result<String> {
    let name = entry.name().map_err(damaged_zip)?.into_owned();
    let escapes_root =
        name.starts_with('/') || name.contains(['\\', '\0', ':']) || name.split('/').any(|part| part == "..");
    if escapes_root {
        return Err(invalid_zip(format!("the entry {name:?} points outside of the zip")));
    }
    if entry.is_symlink() {
        return Err(invalid_zip(format!("the entry {name:?} is a link; put the file itself into the zip")));
    }
    if entry.encrypted() {
        return Err(invalid_zip(format!("the entry {name:?} is encrypted; zip the folder without a password")));
    }
    Ok(name)
}

/// The folder of the zip that holds the adapter, with a trailing slash; empty for the top level.
fn find_adapter_dir(entries: &EntryIndex) -> Result<String> {
    // macOS adds metadata files with the same names.
    let candidate_paths = entries.keys().filter(|name| !name.starts_with("__MACOSX/"));
    let mut folders = candidate_paths
        .filter_map(|name| name.strip_suffix(CONFIG_FILE))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('/'));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder.to_string()),
        (None, _) => {
            Err(invalid_zip(format!("it holds no {CONFIG_FILE}; zip the folder that PEFT's save_pretrained wrote")))
        }
        (Some(first), Some(second)) => Err(invalid_zip(format!(
            "it holds several adapters ({first}{CONFIG_FILE} and {second}{CONFIG_FILE}); upload them one by one"
        ))),
    }
}

fn pickle_error(name: &str, advice: &str) -> Error {
    let detail = format!(
        "{name} is a pickle, which can run code when it is read, and is not opened here: save the adapter with {advice}"
    );
    Error::invalid("unsupported_adapter", detail)
}

fn extract_entry(archive: &mut ZipArchive<File>, index: usize, target_path: &Path, max_bytes: u64) -> Result<()> {
    let entry = archive.by_index(index).map_err(damaged_zip)?;
    let name = entry.name().map_err(damaged_zip)?.into_owned();
    let mut bytes = Vec::new();
    entry
        .take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| invalid_zip(format!("{name} cannot be unpacked ({error}); was the upload cut off?")))?;
    if bytes.len() as u64 > max_bytes {
        return Err(invalid_zip(format!("{name} unpacks to more than {max_bytes} bytes, the most that is accepted")));
    }
    fs::write(target_path, bytes).context("writing an unpacked file")
}

fn damaged_zip(error: zip::result::ZipError) -> Error {
    invalid_zip(format!("it is damaged ({error})"))
}

fn invalid_zip(what: String) -> Error {
    Error::invalid("unreadable_adapter", format!("the zip cannot be used: {what}"))
}

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
