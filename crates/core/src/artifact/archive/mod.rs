//! Files of an adapter in an uploaded archive (zip or `.tar.gz`) or in a folder, copied to a folder of their own.
//!
//! Files are written under fixed names, so no entry can leave the folder. Entries that would (`..`, absolute paths, links) are
//! rejected nevertheless, because no tool writes them by accident. Sizes are measured while unpacking; the declared ones are not used.

mod folder_reader;
mod tar_reader;
mod zip_reader;

#[cfg(test)]
mod tests;

use crate::adapter::tensor_spec::CONFIG_FILE;
use crate::artifact::adapterhub;
use crate::artifact::folder::WEIGHTS_FILE;
use crate::artifact::manifest::MANIFEST_FILE;
use crate::error::{Context, Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::path::Path;

pub use folder_reader::copy_folder;

/// Limits on the content of an uploaded archive, and on the files of a folder.
#[derive(Debug, Clone, Copy)]
pub struct ImportLimits {
    /// Entries, folders and ignored files included.
    pub max_entries: usize,
    /// Unpacked bytes of one JSON file.
    pub max_json_bytes: u64,
    /// Unpacked bytes of one file of tensors. All files of a `.tar.gz` together may have twice as many.
    pub max_tensor_bytes: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { max_entries: 1000, max_json_bytes: 64 << 20, max_tensor_bytes: 512 << 20 }
    }
}

impl ImportLimits {
    fn max_unpacked_bytes(&self) -> u64 {
        self.max_tensor_bytes.saturating_mul(2)
    }
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Extracts `adapter_config.json`, `adapter_model.safetensors` and, if present, `espalier.json` to `target_dir`; or AdapterHub's four
/// files. They may be in a folder of the archive. Other files are ignored.
///
/// # Errors
/// `Invalid` (`unreadable_adapter`) with the reason; `unsupported_adapter` if the tensors are pickled.
pub fn unpack(mut file: File, target_dir: &Path, limits: &ImportLimits) -> Result<()> {
    let mut magic = [0; 2];
    match file.read_exact(&mut magic) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        other => other.context("reading an uploaded archive")?,
    }
    file.rewind().context("reading an uploaded archive")?;
    match magic == GZIP_MAGIC {
        true => tar_reader::unpack(&file, target_dir, limits),
        false => zip_reader::unpack(file, target_dir, limits),
    }
}

/// A file to extract.
struct SelectedFile {
    /// Path in the archive.
    path: String,
    /// Name in the target folder.
    name: &'static str,
    max_bytes: u64,
}

/// Selects the files of the only adapter among the paths of an archive or folder.
fn select_files(paths: &BTreeSet<String>, container: &'static str, limits: &ImportLimits) -> Result<Vec<SelectedFile>> {
    let adapter_dir = find_adapter_dir(paths, container)?;
    let contains = |name: &str| paths.contains(&format!("{adapter_dir}{name}"));
    let is_adapterhub = !contains(WEIGHTS_FILE) && !contains(MANIFEST_FILE) && contains(adapterhub::WEIGHTS_FILE);
    if let Some(pickle) = adapterhub::PICKLE_FILES.iter().find(|name| contains(name) && !contains(WEIGHTS_FILE)) {
        return Err(pickle_error(pickle, "save_adapter(…, use_safetensors=True)"));
    }
    if !is_adapterhub && !contains(WEIGHTS_FILE) {
        return Err(match contains(PEFT_PICKLE_FILE) {
            true => pickle_error(PEFT_PICKLE_FILE, "save_pretrained(…, safe_serialization=True)"),
            false => invalid_archive(container, format!("it holds no {adapter_dir}{WEIGHTS_FILE}")),
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
    let select = |(name, max_bytes): &(&'static str, u64)| {
        contains(name).then(|| SelectedFile { path: format!("{adapter_dir}{name}"), name, max_bytes: *max_bytes })
    };
    Ok(expected_files.iter().filter_map(select).collect())
}

/// The tensors of an adapter that PEFT saved as a pickle.
const PEFT_PICKLE_FILE: &str = "adapter_model.bin";

/// The folder of the archive that holds the adapter, with a trailing slash; empty for the top level.
fn find_adapter_dir(paths: &BTreeSet<String>, container: &'static str) -> Result<String> {
    // macOS adds metadata files: a folder of its own in a zip, and names that begin with `._` in a tar.
    let candidate_paths = paths.iter().filter(|path| !path.starts_with("__MACOSX/"));
    let mut folders = candidate_paths
        .filter_map(|path| path.strip_suffix(CONFIG_FILE))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('/'));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder.to_string()),
        (None, _) => Err(invalid_archive(
            container,
            format!("it holds no {CONFIG_FILE}; send the folder that PEFT's save_pretrained wrote"),
        )),
        (Some(first), Some(second)) => Err(invalid_archive(
            container,
            format!(
                "it holds several adapters ({first}{CONFIG_FILE} and {second}{CONFIG_FILE}); import them one by one"
            ),
        )),
    }
}

/// Checks the path of an entry, which may be a link.
fn check_entry_path(path: &str, container: &'static str, kind: EntryKind) -> Result<()> {
    let escapes_root =
        path.starts_with('/') || path.contains(['\\', '\0', ':']) || path.split('/').any(|part| part == "..");
    if escapes_root {
        return Err(invalid_archive(container, format!("the entry {path:?} points outside of the {container}")));
    }
    match kind {
        EntryKind::File => Ok(()),
        EntryKind::Link => Err(invalid_archive(
            container,
            format!("the entry {path:?} is a link; put the file itself into the {container}"),
        )),
    }
}

/// Whether an entry of an archive has content of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File,
    /// Link, device or pipe.
    Link,
}

/// Writes the content of a selected file.
fn write_file(content: impl Read, file: &SelectedFile, container: &'static str, target_dir: &Path) -> Result<()> {
    let (path, max_bytes) = (&file.path, file.max_bytes);
    let mut bytes = Vec::new();
    content.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| {
        invalid_archive(container, format!("{path} cannot be unpacked ({error}); was the upload cut off?"))
    })?;
    if bytes.len() as u64 > max_bytes {
        let reason = format!("{path} unpacks to more than {max_bytes} bytes, the most that is accepted");
        return Err(invalid_archive(container, reason));
    }
    fs::write(target_dir.join(file.name), bytes).context("writing an unpacked file")
}

fn check_entry_count(count: usize, container: &'static str, limits: &ImportLimits) -> Result<()> {
    match count > limits.max_entries {
        true => {
            let max_entries = limits.max_entries;
            Err(invalid_archive(container, format!("it holds {count} entries, at most {max_entries} are accepted")))
        }
        false => Ok(()),
    }
}

fn pickle_error(name: &str, advice: &str) -> Error {
    let detail = format!(
        "{name} is a pickle, which can run code when it is read, and is not opened here: save the adapter with {advice}"
    );
    Error::invalid("unsupported_adapter", detail)
}

fn invalid_archive(container: &str, reason: impl std::fmt::Display) -> Error {
    Error::invalid("unreadable_adapter", format!("the {container} cannot be used: {reason}"))
}
