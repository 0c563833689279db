//! The published folder: three files in a folder named by their hash.
//!
//! The version is the sha256 of the output of `sha256sum adapter_config.json adapter_model.safetensors espalier.json`, so that it can
//! be verified with standard tools.

use super::base::{BaseSummary, base_mismatch, is_same_model_name};
use super::manifest::{self, AdapterManifest, Artifact, MANIFEST_FILE};
use super::peft::{self, head, weights};
use super::safetensors;
use super::vocabulary;
use crate::adapter::PeftMethod;
use crate::adapter::peft::ModuleNaming;
use crate::adapter::tensor_spec::{CONFIG_FILE, ValidationErrors};
use crate::durable_fs::{sync_dir, write_file_synced};
use crate::error::{Context, Error, Result};
use crate::model::{BaseModel, SiteInfo};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The tensors of an adapter, in PEFT's format.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A published version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAdapter {
    /// Hexadecimal sha256, the name of the folder.
    pub version: String,
    pub total_bytes: u64,
    pub prior_folder: PriorFolder,
}

/// Whether the folder of the version existed before it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorFolder {
    Absent,
    /// Intact or damaged. Another process may be about to remove it.
    Present,
}

/// The bytes of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterFiles {
    pub config: Vec<u8>,
    pub weights: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl AdapterFiles {
    /// Names of the files: configuration, weights and manifest. Sorted, the order of the version's hash.
    pub const NAMES: [&'static str; 3] = [CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE];

    /// # Errors
    /// `Invalid` (`adapter_tensors`) if a tensor has values that are not finite.
    pub fn from_artifact(artifact: &Artifact, summary: &BaseSummary) -> Result<Self> {
        let pooling = summary.pooling(&artifact.manifest.task);
        let naming = head::naming_for(&artifact.manifest.task, &artifact.weights, summary);
        let head = head::HeadLayout::for_writing(&artifact.manifest.task, naming, summary.info.classification_head());
        let (sites, method) = (summary.sites_for(pooling), &artifact.manifest.method);
        let vocabulary = &artifact.manifest.vocabulary;
        let peft_tensors = match vocabulary.is_empty() {
            true => weights::to_peft(&artifact.weights, method, sites, naming, head),
            false => {
                let (own, others) = vocabulary::split_weights(artifact.weights.clone());
                let mut tensors = weights::to_peft(&others, method, sites, naming, head);
                tensors.extend(peft::vocabulary::file_tensors(&own, vocabulary, naming, summary));
                tensors
            }
        };
        Ok(Self {
            config: peft::write_config(artifact, summary)?,
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

    /// The files in the order of [`Self::NAMES`].
    pub fn named_files(&self) -> [(&'static str, &[u8]); 3] {
        let [config, weights, manifest] = Self::NAMES;
        [(config, &self.config), (weights, &self.weights), (manifest, &self.manifest)]
    }

    /// Hexadecimal sha256 over the names and hashes of the files.
    pub fn version(&self) -> String {
        let lines = self.named_files().map(|(name, bytes)| format!("{}  {name}\n", sha256_hex(bytes)));
        sha256_hex(lines.concat().as_bytes())
    }

    pub fn total_bytes(&self) -> u64 {
        self.named_files().iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// # Errors
    /// `Invalid` with the reason if the files are damaged, contradict each other or do not fit the base.
    pub fn parse(&self, summary: &BaseSummary) -> Result<Artifact> {
        let manifest = manifest::read(&self.manifest)?;
        let config = peft::Config::parse(&self.config)?;
        let sites = summary.sites_for(summary.pooling(&manifest.task));
        let mut tensors = safetensors::read(&self.weights)?;
        let naming = weights::detect_naming(&tensors, sites);
        check_consistency(&manifest, &config, sites, naming)?;
        config.check_base(summary)?;
        let head = manifest
            .task
            .head_outputs(&manifest.labels)
            .map(|_| head::HeadLayout::for_reading(&tensors, &manifest.task, summary));
        let own = peft::vocabulary::take_tensors(&mut tensors, &manifest.vocabulary, naming, summary)?;
        let mut weights = weights::from_peft(tensors, &manifest.method, sites, head, summary.info.hidden_size)?;
        weights.extend(own);
        let head_rows = weights.get("head.bias").map_or(0, |bias| bias.shape[0]);
        manifest::validate(&manifest, head_rows, summary)?;
        let has_labels = config.labels.is_none_or(|labels| labels == manifest.labels);
        contradiction_error(if has_labels { &[] } else { &["id2label"] })?;
        Ok(Artifact { manifest, weights })
    }
}

/// Checks that both files describe the same base and method; they differ only if one was edited.
fn check_consistency(
    manifest: &AdapterManifest,
    config: &peft::Config,
    sites: &[SiteInfo],
    naming: ModuleNaming,
) -> Result<()> {
    let method = &manifest.method;
    let mut fields = match &config.method {
        Some(found) => found.differing_fields(method, sites, naming)?,
        None => Vec::new(),
    };
    if method.peft_type(sites) != config.method.as_ref().map(PeftMethod::peft_type) {
        fields.push("peft_type");
    }
    let is_other_base = |name: &String| *name != manifest.base.name && !is_same_model_name(name, &manifest.base.name);
    if config.base_model_name.as_ref().is_some_and(is_other_base) {
        fields.push("base_model_name_or_path");
    }
    contradiction_error(&fields)
}

/// # Errors
/// `Invalid` (`unreadable_adapter`) naming the fields that differ, if there are any.
fn contradiction_error(fields: &[&str]) -> Result<()> {
    let mut errors = ValidationErrors::default();
    fields.iter().for_each(|field| errors.push(format!("{field} differs")));
    errors.into_result("unreadable_adapter", "adapter_config.json and espalier.json contradict each other")
}

/// Writes the adapter to a folder under `root`, named by its version. An intact folder of that version is kept, a damaged one is
/// replaced. The files are written under `scratch_root`, which is on the same file system, synced and renamed into place.
pub fn publish_artifact(
    artifact: &Artifact,
    base: &BaseModel,
    root: &Path,
    scratch_root: &Path,
) -> Result<PublishedAdapter> {
    let summary = BaseSummary::from_base(base);
    let files = AdapterFiles::from_artifact(artifact, &summary)?;
    // Fails before publishing an adapter that would not load.
    files.parse(&summary)?;
    publish_files(&files, root, scratch_root)
}

/// Reads a published folder. Its hash must be its name, every tensor expected, present and of its shape, and the base the one it was
/// made for.
///
/// # Errors
/// `Conflict` with `adapter_damaged` or `other_base` and the reason.
pub fn load_published(root: &Path, version: &str, base: &BaseModel) -> Result<Artifact> {
    load_with_summary(root, version, &BaseSummary::from_base(base))
}

/// Writes files to a folder under `root` as [`publish_artifact`] does, without a check of what they say.
pub fn publish_files(files: &AdapterFiles, root: &Path, scratch_root: &Path) -> Result<PublishedAdapter> {
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
        write_file_synced(&staging.join(name), bytes).context("writing an adapter's file")?;
    }
    sync_dir(&staging).context("syncing an adapter's folder")?;
    let prior_folder = rename_into_place(&staging, &version_dir, &version, scratch.path())?;
    sync_dir(root).context("syncing the adapters' folder")?;
    Ok(PublishedAdapter { version, total_bytes: bytes, prior_folder })
}

fn rename_into_place(staging: &Path, version_dir: &Path, version: &str, scratch: &Path) -> Result<PriorFolder> {
    match fs::rename(staging, version_dir) {
        Ok(()) => Ok(PriorFolder::Absent),
        // Another process published the same version in the meantime.
        Err(error) if is_target_occupied(&error) && is_intact(version_dir, version) => Ok(PriorFolder::Present),
        Err(error) if is_target_occupied(&error) => {
            tracing::warn!(version, "replacing a damaged adapter folder");
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
    if let Some(reason) = base_mismatch(&manifest.base, &summary.info) {
        return Err(Error::conflict("other_base", reason));
    }
    files.parse(summary).map_err(|error| damaged_error(version, &error.to_string()))
}

/// Reads the files of a version and verifies their hash.
///
/// # Errors
/// `Conflict` (`adapter_damaged`) if a file is missing or the hash is not the version.
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

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
