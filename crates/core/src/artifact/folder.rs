//! The published folder: three files under the name of their hash.
//!
//! The version is the sha256 of the lines that `sha256sum adapter_config.json adapter_model.safetensors espalier.json`
//! prints, so that anybody can check it. Knows nothing of zips, nor of who asks.

use super::peft::{self, head::HeadLayout, module_naming::ModuleNaming, tensor_specs, weights};
use super::validation_errors::ValidationErrors;
use super::{
    Artifact, BaseSummary, CONFIG_FILE, MANIFEST_FILE, PriorFolder, PublishedAdapter, WEIGHTS_FILE, base_match,
    manifest, safetensors,
};
use crate::adapter;
use crate::error::{Context, Error, Result};
use crate::model::{BaseModel, SiteInfo};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The bytes of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterFiles {
    pub config: Vec<u8>,
    pub weights: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl AdapterFiles {
    /// # Errors
    /// `Invalid` (`adapter_tensors`) where a tensor holds values that are not finite.
    pub fn from_artifact(artifact: &Artifact, summary: &BaseSummary) -> Result<Self> {
        let pooling = summary.pooling(&artifact.manifest.task);
        let naming = ModuleNaming::for_adapter(&artifact.manifest.task, &artifact.weights, summary);
        let head = HeadLayout::for_writing(&artifact.manifest.task, naming, summary.info.classification_head());
        let (sites, method) = (summary.sites_for(pooling), &artifact.manifest.method);
        let peft_tensors = weights::to_peft(&artifact.weights, method, sites, naming, head);
        Ok(Self {
            config: peft::config_writer::write_config(artifact, summary)?,
            weights: safetensors::write(&peft_tensors)?,
            manifest: manifest::write(&artifact.manifest)?,
        })
    }

    pub fn load(folder: &Path) -> std::io::Result<Self> {
        let read_file = |name: &str| fs::read(folder.join(name));
        Ok(Self {
            config: read_file(CONFIG_FILE)?,
            weights: read_file(WEIGHTS_FILE)?,
            manifest: read_file(MANIFEST_FILE)?,
        })
    }

    /// Sorted by name, as the version wants them.
    pub fn named_files(&self) -> [(&'static str, &[u8]); 3] {
        [(CONFIG_FILE, &self.config), (WEIGHTS_FILE, &self.weights), (MANIFEST_FILE, &self.manifest)]
    }

    /// sha256 over the sorted names and sha256 of the files, hexadecimal.
    pub fn version(&self) -> String {
        let lines = self.named_files().map(|(name, bytes)| format!("{}  {name}\n", sha256_hex(bytes)));
        sha256_hex(lines.concat().as_bytes())
    }

    pub fn total_bytes(&self) -> u64 {
        self.named_files().iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// # Errors
    /// `Invalid` with the reason where the files are damaged or do not fit each other or the base.
    pub fn parse(&self, summary: &BaseSummary) -> Result<Artifact> {
        let manifest = manifest::read(&self.manifest)?;
        let config = peft::Config::parse(&self.config)?;
        let sites = summary.sites_for(summary.pooling(&manifest.task));
        check_consistency(&manifest.method, &config, sites)?;
        config.check_base(summary)?;
        let tensors = safetensors::read(&self.weights)?;
        let head = manifest
            .task
            .head_outputs(&manifest.labels)
            .map(|_| HeadLayout::for_reading(&tensors, &manifest.task, summary));
        let weights = weights::from_peft(tensors, &manifest.method, sites, head, summary.info.hidden_size)?;
        let head_rows = weights.get("head.bias").map_or(0, |bias| bias.shape[0]);
        manifest::validate(&manifest, head_rows, summary)?;
        Ok(Artifact { manifest, weights })
    }
}

/// The method is said twice, for PEFT and for us; a folder that contradicts itself was edited by hand.
fn check_consistency(method: &adapter::Config, config: &peft::Config, sites: &[SiteInfo]) -> Result<()> {
    let mut errors = ValidationErrors::default();
    let mut require_equal = |field: &str, same: bool| {
        if !same {
            errors.push(format!("{field} differs"));
        }
    };
    match (method, &config.method) {
        (adapter::Config::Lora(native_lora), Some(peft::Method::Lora(peft_lora))) => {
            require_equal("r", native_lora.rank == peft_lora.rank);
            require_equal("lora_alpha", native_lora.alpha() == peft_lora.alpha);
            require_equal("use_rslora", native_lora.rslora == peft_lora.use_rslora);
            require_equal("use_dora", native_lora.dora == peft_lora.use_dora);
            require_equal("bias", native_lora.bias == peft_lora.bias);
        }
        (adapter::Config::Vera(native_vera), Some(peft::Method::Vera(peft_vera))) => {
            require_equal("r", native_vera.rank == peft_vera.rank);
        }
        (
            native,
            Some(peft::Method::PromptTuning(count) | peft::Method::PTuning(count) | peft::Method::PrefixTuning(count)),
        ) => {
            require_equal("num_virtual_tokens", native.num_virtual_tokens() == *count);
        }
        _ => {}
    }
    let peft_type = config.method.as_ref().map(peft::Method::peft_type);
    require_equal("peft_type", tensor_specs::peft_type(method, sites) == peft_type);
    errors.into_result("unreadable_adapter", "adapter_config.json and espalier.json contradict each other")
}

/// Writes the adapter as a folder under `root`, named by its version; one that is there already is left as it is, unless
/// it is damaged: then it is replaced. Files are written beside it in `temporary` (on the same file system), fsynced,
/// and renamed into place.
pub fn publish_artifact(
    artifact: &Artifact,
    base: &BaseModel,
    root: &Path,
    scratch_root: &Path,
) -> Result<PublishedAdapter> {
    let summary = BaseSummary::from_base(base);
    let files = AdapterFiles::from_artifact(artifact, &summary)?;
    // What is published must open again.
    files.parse(&summary)?;
    publish_files(&files, root, scratch_root)
}

/// Reads a published folder strictly: its version must be its name, every tensor known, present and of its shape, the
/// base the one it was made for.
///
/// # Errors
/// `Conflict` with `adapter_damaged` or `other_base` and the reason.
pub fn load_published(root: &Path, version: &str, base: &BaseModel) -> Result<Artifact> {
    load_with_summary(root, version, &BaseSummary::from_base(base))
}

pub(super) fn publish_files(files: &AdapterFiles, root: &Path, scratch_root: &Path) -> Result<PublishedAdapter> {
    let (version, bytes) = (files.version(), files.total_bytes());
    let version_dir = root.join(&version);
    if is_intact(&version_dir, &version) {
        return Ok(PublishedAdapter { version, total_bytes: bytes, prior_folder: PriorFolder::Present });
    }
    fs::create_dir_all(root).context("making the adapters' folder")?;
    fs::create_dir_all(scratch_root).context("making the folder for temporary files")?;
    let scratch = tempfile::tempdir_in(scratch_root).context("making a temporary folder for an adapter")?;
    let staging = scratch.path().join("fresh");
    fs::create_dir(&staging).context("making an adapter's folder")?;
    for (name, bytes) in files.named_files() {
        write_and_fsync(&staging.join(name), bytes)?;
    }
    fsync_dir(&staging)?;
    let prior_folder = rename_into_place(&staging, &version_dir, &version, scratch.path())?;
    fsync_dir(root)?;
    Ok(PublishedAdapter { version, total_bytes: bytes, prior_folder })
}

fn rename_into_place(staging: &Path, version_dir: &Path, version: &str, scratch: &Path) -> Result<PriorFolder> {
    match fs::rename(staging, version_dir) {
        Ok(()) => Ok(PriorFolder::Absent),
        // Somebody else published the same version meanwhile.
        Err(error) if is_target_occupied(&error) && is_intact(version_dir, version) => Ok(PriorFolder::Present),
        Err(error) if is_target_occupied(&error) => {
            tracing::warn!(version, "a damaged adapter folder is replaced");
            fs::rename(version_dir, scratch.join("damaged")).context("moving a damaged adapter's folder away")?;
            fs::rename(staging, version_dir).context("moving an adapter's folder into place")?;
            Ok(PriorFolder::Present)
        }
        Err(error) => Err(error).context("moving an adapter's folder into place"),
    }
}

fn is_target_occupied(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory)
}

fn is_intact(version_dir: &Path, version: &str) -> bool {
    AdapterFiles::load(version_dir).is_ok_and(|files| files.version() == version)
}

pub(super) fn load_with_summary(root: &Path, version: &str, summary: &BaseSummary) -> Result<Artifact> {
    let files = load_intact_files(&root.join(version), version)?;
    let manifest = manifest::read(&files.manifest).map_err(|error| damaged_error(version, &error.to_string()))?;
    if let Some(reason) = base_match::base_mismatch(&manifest.base, &summary.info) {
        return Err(Error::conflict("other_base", reason));
    }
    files.parse(summary).map_err(|error| damaged_error(version, &error.to_string()))
}

/// The files of a version as they were published.
///
/// # Errors
/// `Conflict` (`adapter_damaged`) where one is missing or they are not those of the version.
pub(super) fn load_intact_files(version_dir: &Path, version: &str) -> Result<AdapterFiles> {
    let files = match AdapterFiles::load(version_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged_error(version, &error.to_string())),
        other => other.context("reading an adapter's files")?,
    };
    match files.version() == version {
        true => Ok(files),
        false => Err(damaged_error(version, &format!("their hash is {}", files.version()))),
    }
}

fn damaged_error(version: &str, reason: &str) -> Error {
    let detail = format!("the files of adapter version {version} are damaged: {reason}; train or import it again");
    Error::conflict("adapter_damaged", detail)
}

fn write_and_fsync(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).context("making an adapter's file")?;
    file.write_all(bytes).context("writing an adapter's file")?;
    file.sync_all().context("syncing an adapter's file")
}

/// A rename is durable only when the folder is.
fn fsync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).context("syncing an adapter's folder")
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
