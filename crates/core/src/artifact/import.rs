//! A zip from outside becomes an adapter, or is refused with the reason.
//!
//! Our own export comes back as it was. A plain folder of PEFT's or AdapterHub's says neither labels nor what it was trained on beyond a
//! name: names and every shape are checked, and a probe is made here. Knows nothing of HTTP or of names in the store.

use super::folder::AdapterFiles;
use super::loaded_adapter::LoadedAdapter;
use super::{Artifact, BaseSummary, ImportLimits, MANIFEST_FILE, adapterhub, base_match, manifest, probe, zip};
use crate::error::{Context, Error, Result};
use crate::model::{BaseModel, Pooling};
use crate::task::Input;
use peft_files::PeftFiles;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::Path;
use utoipa::ToSchema;

mod adapterhub_files;
mod peft_files;

/// What a plain PEFT folder leaves open. Our own exports say it all themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportRequest {
    /// In the order of the head's rows; else from `id2label` in adapter_config.json, else `LABEL_0`, `LABEL_1`, …
    pub labels: Option<Vec<String>>,
    /// The base that the adapter was trained on, where adapter_config.json does not name it or names it otherwise.
    pub base: Option<String>,
    /// How the adapter's head reads a sequence; `cls` for transformers' classification models, and the default for
    /// them.
    pub pooling: Option<Pooling>,
    /// Tokens; longer inputs are truncated. By default as many as the base can read.
    pub max_length: Option<usize>,
}

/// What an imported adapter is asked, to see that it does something.
const PROBE_TEXTS: [&str; 2] = ["Where is my card?", "What a terrible film!"];

/// Unpacks, checks and proves.
///
/// # Errors
/// `Invalid`: `unreadable_adapter`, `unsupported_adapter`, `adapter_tensors`, `other_base`, `adapter_without_effect` or
/// `probe_failed` for the zip, `invalid_import` for the request, each with the reason and what to do.
pub fn import(
    zip: &Path,
    request: &ImportRequest,
    base: &BaseModel,
    scratch_root: &Path,
    limits: &ImportLimits,
) -> Result<Artifact> {
    let summary = BaseSummary::from_base(base);
    match parse_upload(zip, request, &summary, scratch_root, limits)? {
        UnverifiedAdapter::Native(artifact) => {
            let recorded_probe = &artifact.manifest.probe;
            probe::verify_probe(&LoadedAdapter::load(&artifact, base)?, base, recorded_probe)
                .map_err(conflict_to_invalid)?;
            // What it answered is also what nothing but an adapter could answer.
            probe::record_probe(&artifact, base, recorded_probe.inputs.clone())?;
            Ok(artifact)
        }
        UnverifiedAdapter::ThirdParty(mut artifact) => {
            artifact.manifest.probe = probe::record_probe(&artifact, base, probe_inputs())?;
            Ok(artifact)
        }
    }
}

/// An adapter whose files fit the base, not yet proven.
enum UnverifiedAdapter {
    /// This software exported it: its card says what it is, and holds a probe.
    Native(Artifact),
    /// A plain folder of PEFT's or AdapterHub's: the probe is yet to be made.
    ThirdParty(Artifact),
}

fn parse_upload(
    zip: &Path,
    request: &ImportRequest,
    summary: &BaseSummary,
    scratch_root: &Path,
    limits: &ImportLimits,
) -> Result<UnverifiedAdapter> {
    fs::create_dir_all(scratch_root).context("making the folder for temporary files")?;
    let folder = tempfile::tempdir_in(scratch_root).context("making a temporary folder for an import")?;
    let folder = folder.path();
    zip::unpack(File::open(zip).context("opening the uploaded zip")?, folder, limits)?;
    if fs::exists(folder.join(adapterhub::WEIGHTS_FILE)).context("looking for AdapterHub's tensors")? {
        return Ok(UnverifiedAdapter::ThirdParty(adapterhub_files::parse(
            &adapterhub_files::read_files(folder)?,
            request,
            summary,
        )?));
    }
    if !fs::exists(folder.join(MANIFEST_FILE)).context("looking for espalier.json")? {
        return Ok(UnverifiedAdapter::ThirdParty(PeftFiles::load(folder)?.parse(request, summary)?));
    }
    reject_redundant_request(request)?;
    let files = AdapterFiles::load(folder).context("reading an unpacked adapter")?;
    if let Some(reason) = base_match::base_mismatch(&manifest::read(&files.manifest)?.base, &summary.info) {
        return Err(Error::invalid("other_base", reason));
    }
    Ok(UnverifiedAdapter::Native(files.parse(summary)?))
}

fn reject_redundant_request(request: &ImportRequest) -> Result<()> {
    match *request == ImportRequest::default() {
        true => Ok(()),
        false => Err(Error::invalid(
            "invalid_import",
            "the zip holds an espalier.json, which says labels, base, pooling and max_length: leave them out of the request",
        )),
    }
}

/// What is a conflict for an adapter that we keep is a fault of one that is offered.
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
