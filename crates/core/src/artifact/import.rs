//! A zip from outside becomes an adapter, or is refused with the reason.
//!
//! Our own export comes back as it was. A plain folder of PEFT's or AdapterHub's says neither labels nor what it was trained on beyond a
//! name: names and every shape are checked, and a probe is made here. Knows nothing of HTTP or of names in the store.

use super::adapted::Adapted;
use super::folder::Files;
use super::{Artifact, CARD_FILE, Outline, Settings, adapterhub, card, names, probe, zip};
use crate::error::{Context, Error, Result};
use crate::model::{Base, Pooling};
use crate::task::Input;
use plain::Plain;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::Path;
use utoipa::ToSchema;

mod hub;
mod plain;

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
const PROBES: [&str; 2] = ["Where is my card?", "What a terrible film!"];

/// Unpacks, checks and proves.
///
/// # Errors
/// `Invalid`: `unreadable_adapter`, `unsupported_adapter`, `adapter_tensors`, `other_base`, `adapter_without_effect` or
/// `probe_failed` for the zip, `invalid_import` for the request, each with the reason and what to do.
pub fn import(
    zip: &Path,
    request: &ImportRequest,
    base: &Base,
    temporary: &Path,
    settings: &Settings,
) -> Result<Artifact> {
    let outline = Outline::of(base);
    match open(zip, request, &outline, temporary, settings)? {
        Opened::Ours(artifact) => {
            let recorded = &artifact.card.probe;
            probe::check(&Adapted::load(&artifact, base)?, base, recorded).map_err(as_invalid)?;
            // What it answered is also what nothing but an adapter could answer.
            probe::make(&artifact, base, recorded.inputs.clone())?;
            Ok(artifact)
        }
        Opened::Plain(mut artifact) => {
            artifact.card.probe = probe::make(&artifact, base, probes())?;
            Ok(artifact)
        }
    }
}

/// An adapter whose files fit the base, not yet proven.
enum Opened {
    /// This software exported it: its card says what it is, and holds a probe.
    Ours(Artifact),
    /// A plain folder of PEFT's or AdapterHub's: the probe is yet to be made.
    Plain(Artifact),
}

fn open(
    zip: &Path,
    request: &ImportRequest,
    outline: &Outline,
    temporary: &Path,
    settings: &Settings,
) -> Result<Opened> {
    fs::create_dir_all(temporary).context("making the folder for temporary files")?;
    let folder = tempfile::tempdir_in(temporary).context("making a temporary folder for an import")?;
    let folder = folder.path();
    zip::unpack(File::open(zip).context("opening the uploaded zip")?, folder, settings)?;
    if fs::exists(folder.join(adapterhub::TENSOR_FILE)).context("looking for AdapterHub's tensors")? {
        return Ok(Opened::Plain(hub::open(&hub::load(folder)?, request, outline)?));
    }
    if !fs::exists(folder.join(CARD_FILE)).context("looking for espalier.json")? {
        return Ok(Opened::Plain(Plain::load(folder)?.open(request, outline)?));
    }
    refuse_answers_to_settled_questions(request)?;
    let files = Files::load(folder).context("reading an unpacked adapter")?;
    if let Some(reason) = names::other_base(&card::read(&files.card)?.base, &outline.info) {
        return Err(Error::invalid("other_base", reason));
    }
    Ok(Opened::Ours(files.open(outline)?))
}

fn refuse_answers_to_settled_questions(request: &ImportRequest) -> Result<()> {
    match *request == ImportRequest::default() {
        true => Ok(()),
        false => Err(Error::invalid(
            "invalid_import",
            "the zip holds an espalier.json, which says labels, base, pooling and max_length: leave them out of the request",
        )),
    }
}

/// What is a conflict for an adapter that we keep is a fault of one that is offered.
fn as_invalid(error: Error) -> Error {
    match error {
        Error::Conflict(problem) => Error::Invalid(problem),
        other => other,
    }
}

fn probes() -> Vec<Input> {
    PROBES.map(Input::text).to_vec()
}

#[cfg(test)]
mod tests;
