//! The adapter that a job starts from, read again from the data folder: the version says which bytes it is.

use crate::artifact::probe;
use crate::error::Result;
use crate::model::Base;
use crate::training::Plan;
use crate::training::warm_start::Source;
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
