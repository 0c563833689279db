//! The published folder: three files under the name of their hash.
//!
//! The version is the sha256 of the lines that `sha256sum adapter_config.json adapter_model.safetensors espalier.json`
//! prints, so that anybody can check it. Knows nothing of zips, nor of who asks.

use super::faults::Faults;
use super::peft::{self, entries, head::Head, keys::Form, weights};
use super::{Artifact, Before, CARD_FILE, CONFIG_FILE, Outline, Published, TENSOR_FILE, card, names, safetensors};
use crate::adapter;
use crate::error::{Context, Error, Result};
use crate::model::{Base, SiteInfo};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The bytes of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub config: Vec<u8>,
    pub tensors: Vec<u8>,
    pub card: Vec<u8>,
}

impl Files {
    /// # Errors
    /// `Invalid` (`adapter_tensors`) where a tensor holds values that are not finite.
    pub fn of(artifact: &Artifact, outline: &Outline) -> Result<Self> {
        let pooling = outline.pooling(&artifact.card.task);
        let form = Form::of(&artifact.card.task, &artifact.weights, outline);
        let head = Head::of(&artifact.card.task, form, outline.info.head());
        let (sites, method) = (outline.sites(pooling), &artifact.card.method);
        let keyed = weights::to_peft(&artifact.weights, method, sites, form, head);
        Ok(Self {
            config: peft::export::config(artifact, outline)?,
            tensors: safetensors::write(&keyed)?,
            card: card::write(&artifact.card)?,
        })
    }

    pub fn load(folder: &Path) -> std::io::Result<Self> {
        let file = |name: &str| fs::read(folder.join(name));
        Ok(Self { config: file(CONFIG_FILE)?, tensors: file(TENSOR_FILE)?, card: file(CARD_FILE)? })
    }

    /// Sorted by name, as the version wants them.
    pub fn named(&self) -> [(&'static str, &[u8]); 3] {
        [(CONFIG_FILE, &self.config), (TENSOR_FILE, &self.tensors), (CARD_FILE, &self.card)]
    }

    /// sha256 over the sorted names and sha256 of the files, hexadecimal.
    pub fn version(&self) -> String {
        let lines = self.named().map(|(name, bytes)| format!("{}  {name}\n", hex(bytes)));
        hex(lines.concat().as_bytes())
    }

    pub fn bytes(&self) -> u64 {
        self.named().iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// # Errors
    /// `Invalid` with the reason where the files are damaged or do not fit each other or the base.
    pub fn open(&self, outline: &Outline) -> Result<Artifact> {
        let card = card::read(&self.card)?;
        let config = peft::Config::read(&self.config)?;
        let sites = outline.sites(outline.pooling(&card.task));
        agree(&card.method, &config, sites)?;
        config.check_base(outline)?;
        let tensors = safetensors::read(&self.tensors)?;
        let head = card.task.outputs(&card.labels).map(|_| Head::in_file(&tensors, &card.task, outline));
        let weights = weights::from_peft(tensors, &card.method, sites, head, outline.info.hidden_size)?;
        let rows = weights.get("head.bias").map_or(0, |bias| bias.shape[0]);
        card::check(&card, rows, outline)?;
        Ok(Artifact { card, weights })
    }
}

/// The method is said twice, for PEFT and for us; a folder that contradicts itself was edited by hand.
fn agree(method: &adapter::Config, config: &peft::Config, sites: &[SiteInfo]) -> Result<()> {
    let mut faults = Faults::default();
    let mut same = |field: &str, same: bool| {
        if !same {
            faults.add(format!("{field} differs"));
        }
    };
    match (method, &config.method) {
        (adapter::Config::Lora(ours), Some(peft::Method::Lora(theirs))) => {
            same("r", ours.rank == theirs.rank);
            same("lora_alpha", ours.alpha() == theirs.alpha);
            same("use_rslora", ours.rslora == theirs.rslora);
            same("use_dora", ours.dora == theirs.dora);
            same("bias", ours.bias == theirs.bias);
        }
        (adapter::Config::Vera(ours), Some(peft::Method::Vera(theirs))) => same("r", ours.rank == theirs.rank),
        (
            ours,
            Some(peft::Method::PromptTuning(count) | peft::Method::PTuning(count) | peft::Method::PrefixTuning(count)),
        ) => {
            same("num_virtual_tokens", ours.virtual_tokens() == *count);
        }
        _ => {}
    }
    let theirs = config.method.as_ref().map(peft::Method::peft_type);
    same("peft_type", entries::peft_type(method, sites) == theirs);
    faults.finish("unreadable_adapter", "adapter_config.json and espalier.json contradict each other")
}

/// Writes the adapter as a folder under `root`, named by its version; one that is there already is left as it is, unless
/// it is damaged: then it is replaced. Files are written beside it in `temporary` (on the same file system), fsynced,
/// and renamed into place.
pub fn write(artifact: &Artifact, base: &Base, root: &Path, temporary: &Path) -> Result<Published> {
    let outline = Outline::of(base);
    let files = Files::of(artifact, &outline)?;
    // What is published must open again.
    files.open(&outline)?;
    publish(&files, root, temporary)
}

/// Reads a published folder strictly: its version must be its name, every tensor known, present and of its shape, the
/// base the one it was made for.
///
/// # Errors
/// `Conflict` with `adapter_damaged` or `other_base` and the reason.
pub fn read(root: &Path, version: &str, base: &Base) -> Result<Artifact> {
    open(root, version, &Outline::of(base))
}

pub(super) fn publish(files: &Files, root: &Path, temporary: &Path) -> Result<Published> {
    let (version, bytes) = (files.version(), files.bytes());
    let place = root.join(&version);
    if is_whole(&place, &version) {
        return Ok(Published { version, bytes, before: Before::Folder });
    }
    fs::create_dir_all(root).context("making the adapters' folder")?;
    fs::create_dir_all(temporary).context("making the folder for temporary files")?;
    let beside = tempfile::tempdir_in(temporary).context("making a temporary folder for an adapter")?;
    let fresh = beside.path().join("fresh");
    fs::create_dir(&fresh).context("making an adapter's folder")?;
    for (name, bytes) in files.named() {
        write_synced(&fresh.join(name), bytes)?;
    }
    sync_folder(&fresh)?;
    let before = move_into_place(&fresh, &place, &version, beside.path())?;
    sync_folder(root)?;
    Ok(Published { version, bytes, before })
}

fn move_into_place(fresh: &Path, place: &Path, version: &str, beside: &Path) -> Result<Before> {
    match fs::rename(fresh, place) {
        Ok(()) => Ok(Before::Nothing),
        // Somebody else published the same version meanwhile.
        Err(error) if is_occupied(&error) && is_whole(place, version) => Ok(Before::Folder),
        Err(error) if is_occupied(&error) => {
            tracing::warn!(version, "a damaged adapter folder is replaced");
            fs::rename(place, beside.join("damaged")).context("moving a damaged adapter's folder away")?;
            fs::rename(fresh, place).context("moving an adapter's folder into place")?;
            Ok(Before::Folder)
        }
        Err(error) => Err(error).context("moving an adapter's folder into place"),
    }
}

fn is_occupied(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory)
}

fn is_whole(place: &Path, version: &str) -> bool {
    Files::load(place).is_ok_and(|files| files.version() == version)
}

pub(super) fn open(root: &Path, version: &str, outline: &Outline) -> Result<Artifact> {
    let files = whole(&root.join(version), version)?;
    let card = card::read(&files.card).map_err(|error| damaged(version, &error.to_string()))?;
    if let Some(reason) = names::other_base(&card.base, &outline.info) {
        return Err(Error::conflict("other_base", reason));
    }
    files.open(outline).map_err(|error| damaged(version, &error.to_string()))
}

/// The files of a version as they were published.
///
/// # Errors
/// `Conflict` (`adapter_damaged`) where one is missing or they are not those of the version.
pub(super) fn whole(place: &Path, version: &str) -> Result<Files> {
    let files = match Files::load(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(version, &error.to_string())),
        other => other.context("reading an adapter's files")?,
    };
    match files.version() == version {
        true => Ok(files),
        false => Err(damaged(version, &format!("their hash is {}", files.version()))),
    }
}

fn damaged(version: &str, reason: &str) -> Error {
    let detail = format!("the files of adapter version {version} are damaged: {reason}; train or import it again");
    Error::conflict("adapter_damaged", detail)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).context("making an adapter's file")?;
    file.write_all(bytes).context("writing an adapter's file")?;
    file.sync_all().context("syncing an adapter's file")
}

/// A rename is durable only when the folder is.
fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).context("syncing an adapter's folder")
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
