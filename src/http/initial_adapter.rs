//! The adapter that a job is to start from: looked up, and read as far as the job's defaults depend on it.
//!
//! Knows nothing of what a job does with it.

use super::spawn::run_blocking;
use super::state::AppState;
use crate::store::Reference;
use espalier_core::artifact;
use espalier_core::error::{Error, FieldError, Result};
use espalier_core::training::warm_start::SourceAdapter;
use std::sync::Arc;

/// # Errors
/// `Invalid` for what is no id, name or `name@version`; `NotFound`; `Conflict` where its files are damaged or made for
/// another base.
pub async fn resolve_initial_adapter(state: &AppState, owner: &str, reference_text: &str) -> Result<SourceAdapter> {
    let reference = Reference::parse(reference_text).map_err(with_from_adapter_pointer)?;
    let adapter = state.store.adapter(owner, &reference).await.map_err(with_from_adapter_pointer)?;
    let version = adapter.description.version;
    let (base, folder) = (Arc::clone(&state.base), state.data_dir.adapters_dir());
    run_blocking("reading the adapter that a job starts from", move || {
        let card = artifact::load_published(&folder, &version, &base)?.manifest;
        Ok(SourceAdapter {
            version,
            task: card.task,
            method: card.method,
            labels: card.labels,
            max_length: card.max_length,
        })
    })
    .await
}

fn with_from_adapter_pointer(error: Error) -> Error {
    let point_at_field = |mut problem: espalier_core::error::Problem| {
        problem.errors = vec![FieldError::at_pointer("/from_adapter", problem.detail.clone())];
        problem
    };
    match error {
        Error::Invalid(problem) => Error::Invalid(point_at_field(problem)),
        Error::NotFound(problem) => Error::NotFound(point_at_field(problem)),
        other => other,
    }
}
