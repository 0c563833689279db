//! The adapter that a job starts from, read again from the data folder: the version says which bytes it is.

use espalier_core::artifact::probe;
use espalier_core::error::Result;
use espalier_core::model::BaseModel;
use espalier_core::training::Plan;
use espalier_core::training::warm_start::SourceWeights;
use std::path::Path;

/// `None` for a job that starts afresh.
///
/// # Errors
/// `Conflict` where its files are damaged, made for another base, or do not answer as they did.
pub fn load_source(adapters: &Path, plan: &Plan, base: &BaseModel) -> Result<Option<SourceWeights>> {
    let Some(from) = plan.from_adapter() else { return Ok(None) };
    let (artifact, _) = probe::load_verified(adapters, &from.version, base)?;
    Ok(Some(SourceWeights { labels: artifact.manifest.labels, weights: artifact.weights }))
}
