//! Import of an archive or a folder: unpacks it, recognises the format, and checks the adapter's effect on the base.

use super::peft::PeftFiles;
use super::{ImportRequest, adapterhub as import_adapterhub};
use crate::artifact::archive::{self, ImportLimits};
use crate::artifact::base::{BaseSummary, base_mismatch};
use crate::artifact::folder::AdapterFiles;
use crate::artifact::loaded_adapter::LoadedAdapter;
use crate::artifact::manifest::{self, Artifact, MANIFEST_FILE};
use crate::artifact::{adapterhub, probe};
use crate::error::{Context, Error, Result};
use crate::model::BaseModel;
use crate::task::Input;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Inputs of the probe of an imported adapter.
const PROBE_TEXTS: [&str; 2] = ["Where is my card?", "What a terrible film!"];

/// Where the files of an adapter are.
#[derive(Debug, Clone)]
pub enum ImportSource {
    /// A zip or a `.tar.gz`.
    Archive(PathBuf),
    /// A folder, whose files may be links to files below `root`.
    Folder { path: PathBuf, root: PathBuf },
}

impl ImportSource {
    fn unpack(&self, target_dir: &Path, limits: &ImportLimits) -> Result<()> {
        match self {
            Self::Archive(path) => {
                archive::unpack(File::open(path).context("opening an uploaded archive")?, target_dir, limits)
            }
            Self::Folder { path, root } => archive::copy_folder(path, root, target_dir, limits),
        }
    }
}

/// [`import_source`] of an archive.
///
/// # Errors
/// As [`import_source`].
pub fn import(
    archive: &Path,
    request: &ImportRequest,
    base: &BaseModel,
    scratch_root: &Path,
    limits: &ImportLimits,
) -> Result<Artifact> {
    import_source(&ImportSource::Archive(archive.to_path_buf()), request, base, scratch_root, limits)
}

/// Unpacks and validates an adapter, and verifies or records its probe.
///
/// # Errors
/// `Invalid`: `unreadable_adapter`, `unsupported_adapter`, `adapter_tensors`, `other_base`, `adapter_without_effect` or
/// `probe_failed` for the files, `invalid_import` for the request, each with the reason and what to do.
pub fn import_source(
    source: &ImportSource,
    request: &ImportRequest,
    base: &BaseModel,
    scratch_root: &Path,
    limits: &ImportLimits,
) -> Result<Artifact> {
    let summary = BaseSummary::from_base(base);
    match parse_upload(source, request, &summary, scratch_root, limits)? {
        UnverifiedAdapter::Native(artifact) => {
            let recorded_probe = &artifact.manifest.probe;
            probe::verify_probe(&LoadedAdapter::load(&artifact, base)?, base, recorded_probe)
                .map_err(conflict_to_invalid)?;
            // Fails if the adapter has no effect on the base.
            probe::record_probe(&artifact, base, recorded_probe.inputs.clone())?;
            Ok(artifact)
        }
        UnverifiedAdapter::ThirdParty(mut artifact) => {
            artifact.manifest.vocabulary.remove_base_weights(&mut artifact.weights, base)?;
            artifact.manifest.probe = probe::record_probe(&artifact, base, probe_inputs())?;
            Ok(artifact)
        }
    }
}

/// An adapter whose files fit the base, before its probe is verified.
enum UnverifiedAdapter {
    /// An export of this software, with a probe.
    Native(Artifact),
    /// A folder of PEFT or AdapterHub, with an empty probe.
    ThirdParty(Artifact),
}

fn parse_upload(
    source: &ImportSource,
    request: &ImportRequest,
    summary: &BaseSummary,
    scratch_root: &Path,
    limits: &ImportLimits,
) -> Result<UnverifiedAdapter> {
    fs::create_dir_all(scratch_root).context("making the folder for temporary files")?;
    let folder = tempfile::tempdir_in(scratch_root).context("making a temporary folder for an import")?;
    let folder = folder.path();
    source.unpack(folder, limits)?;
    if fs::exists(folder.join(adapterhub::WEIGHTS_FILE)).context("looking for AdapterHub's tensors")? {
        let files = import_adapterhub::read_files(folder)?;
        return Ok(UnverifiedAdapter::ThirdParty(import_adapterhub::parse(&files, request, summary)?));
    }
    if !fs::exists(folder.join(MANIFEST_FILE)).context("looking for espalier.json")? {
        return Ok(UnverifiedAdapter::ThirdParty(PeftFiles::load(folder)?.parse(request, summary)?));
    }
    reject_redundant_request(request)?;
    let files = AdapterFiles::load(folder).context("reading an unpacked adapter")?;
    if let Some(reason) = base_mismatch(&manifest::read(&files.manifest)?.base, &summary.info) {
        return Err(Error::invalid("other_base", reason));
    }
    Ok(UnverifiedAdapter::Native(files.parse(summary)?))
}

fn reject_redundant_request(request: &ImportRequest) -> Result<()> {
    match *request == ImportRequest::default() {
        true => Ok(()),
        false => Err(Error::invalid(
            "invalid_import",
            "the adapter has an espalier.json, which says labels, base, pooling and max_length: leave them out of the \
             request",
        )),
    }
}

/// A failed check of a stored adapter is a conflict; of an upload it is an error of the request.
fn conflict_to_invalid(error: Error) -> Error {
    match error {
        Error::Conflict(problem) => Error::Invalid(problem),
        other => other,
    }
}

fn probe_inputs() -> Vec<Input> {
    PROBE_TEXTS.map(Input::from_text).to_vec()
}

#[cfg(test)]
mod tests;
