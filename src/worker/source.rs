//! The adapter that a job starts from, read again from the data folder: the version says which bytes it is.

use espalier_core::artifact::probe;
use espalier_core::error::Result;
use espalier_core::model::Base;
use espalier_core::training::Plan;
use espalier_core::training::warm_start::Source;
use std::path::Path;

/// `None` for a job that starts afresh.
///
/// # Errors
/// `Conflict` where its files are damaged, made for another base, or do not answer as they did.
pub fn read(adapters: &Path, plan: &Plan, base: &Base) -> Result<Option<Source>> {
    let Some(from) = plan.from_adapter() else { return Ok(None) };
    let (artifact, _) = probe::proven(adapters, &from.version, base)?;
    Ok(Some(Source { labels: artifact.card.labels, weights: artifact.weights }))
}
