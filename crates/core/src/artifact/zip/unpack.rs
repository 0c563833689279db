//! In: the files that matter out of a zip from outside, whatever else is in it.
//!
//! Nothing is written under a name that the zip chose, so no entry can leave the folder; entries that try (`..`,
//! absolute paths, links) are refused all the same, because no tool writes them by accident. Sizes are counted while
//! unpacking, never believed.

use crate::artifact::{CARD_FILE, CONFIG_FILE, Settings, TENSOR_FILE, adapterhub};
use crate::error::{Context, Error, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use zip::ZipArchive;
use zip::read::ZipFileEntry;

/// The place of every file in the zip, by its path.
type Entries = BTreeMap<String, usize>;

/// Writes `adapter_config.json`, `adapter_model.safetensors` and, where there is one, `espalier.json` into the folder
/// `into`; where AdapterHub's `adapter.safetensors` stands in their place, its files. They may lie in a folder of the zip;
/// other files are left alone.
///
/// # Errors
/// `Invalid` (`unreadable_adapter`) with the reason; `unsupported_adapter` where the tensors are pickled.
pub fn unpack(file: File, into: &Path, settings: &Settings) -> Result<()> {
    let mut archive = ZipArchive::new(file).map_err(|error| unreadable(format!("it is not a zip ({error})")))?;
    if archive.len() > settings.max_entries {
        let most = settings.max_entries;
        return Err(unreadable(format!("it holds {} entries, at most {most} are accepted", archive.len())));
    }
    if archive.has_duplicate_names() {
        return Err(unreadable("it holds the same name twice".to_string()));
    }
    let entries = entries(&mut archive)?;
    let folder = folder(&entries)?;
    let has = |name: &str| entries.contains_key(&format!("{folder}{name}"));
    let is_hubs = !has(TENSOR_FILE) && !has(CARD_FILE) && has(adapterhub::TENSOR_FILE);
    if let Some(pickle) = adapterhub::PICKLES.iter().find(|name| has(name) && !has(TENSOR_FILE)) {
        return Err(pickled(pickle, "save_adapter(…, use_safetensors=True)"));
    }
    if !is_hubs && !has(TENSOR_FILE) {
        return Err(match has("adapter_model.bin") {
            true => pickled("adapter_model.bin", "save_pretrained(…, safe_serialization=True)"),
            false => unreadable(format!("it holds no {folder}{TENSOR_FILE}")),
        });
    }
    let (json, tensors) = (settings.max_json_bytes, settings.max_tensor_bytes);
    let of_peft = [(CONFIG_FILE, json), (TENSOR_FILE, tensors), (CARD_FILE, json)];
    let of_hub = [
        (CONFIG_FILE, json),
        (adapterhub::TENSOR_FILE, tensors),
        (adapterhub::HEAD_CONFIG_FILE, json),
        (adapterhub::HEAD_TENSOR_FILE, tensors),
    ];
    let wanted = if is_hubs { of_hub.as_slice() } else { of_peft.as_slice() };
    for (name, most) in wanted {
        if let Some(index) = entries.get(&format!("{folder}{name}")) {
            extract(&mut archive, *index, &into.join(name), *most)?;
        }
    }
    Ok(())
}

fn entries(archive: &mut ZipArchive<File>) -> Result<Entries> {
    let mut entries = Entries::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(damaged)?;
        let name = safe_name(&entry)?;
        if !entry.is_dir() {
            entries.insert(name, index);
        }
    }
    Ok(entries)
}

fn safe_name(entry: &ZipFileEntry) -> Result<String> {
    let name = entry.name().map_err(damaged)?.into_owned();
    let leaves = name.starts_with('/') || name.contains(['\\', '\0', ':']) || name.split('/').any(|part| part == "..");
    if leaves {
        return Err(unreadable(format!("the entry {name:?} points outside of the zip")));
    }
    if entry.is_symlink() {
        return Err(unreadable(format!("the entry {name:?} is a link; put the file itself into the zip")));
    }
    if entry.encrypted() {
        return Err(unreadable(format!("the entry {name:?} is encrypted; zip the folder without a password")));
    }
    Ok(name)
}

/// The one folder that holds an adapter, with a slash at its end, or nothing for the top.
fn folder(entries: &Entries) -> Result<String> {
    // What macOS adds to a zip looks like the files it belongs to.
    let configs = entries.keys().filter(|name| !name.starts_with("__MACOSX/"));
    let mut folders = configs
        .filter_map(|name| name.strip_suffix(CONFIG_FILE))
        .filter(|before| before.is_empty() || before.ends_with('/'));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder.to_string()),
        (None, _) => {
            Err(unreadable(format!("it holds no {CONFIG_FILE}; zip the folder that PEFT's save_pretrained wrote")))
        }
        (Some(one), Some(other)) => Err(unreadable(format!(
            "it holds several adapters ({one}{CONFIG_FILE} and {other}{CONFIG_FILE}); upload them one by one"
        ))),
    }
}

fn pickled(name: &str, advice: &str) -> Error {
    let detail = format!(
        "{name} is a pickle, which can run code when it is read, and is not opened here: save the adapter with {advice}"
    );
    Error::invalid("unsupported_adapter", detail)
}

fn extract(archive: &mut ZipArchive<File>, index: usize, to: &Path, most: u64) -> Result<()> {
    let entry = archive.by_index(index).map_err(damaged)?;
    let name = entry.name().map_err(damaged)?.into_owned();
    let mut bytes = Vec::new();
    entry
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(format!("{name} cannot be unpacked ({error}); was the upload cut off?")))?;
    if bytes.len() as u64 > most {
        return Err(unreadable(format!("{name} unpacks to more than {most} bytes, the most that is accepted")));
    }
    fs::write(to, bytes).context("writing an unpacked file")
}

fn damaged(error: zip::result::ZipError) -> Error {
    unreadable(format!("it is damaged ({error})"))
}

fn unreadable(what: String) -> Error {
    Error::invalid("unreadable_adapter", format!("the zip cannot be used: {what}"))
}
