//! Lookup of the adapter that a job is initialized from.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::store::Reference;
use espalier_core::artifact;
use espalier_core::error::{Error, FieldError, Problem, Result};
use espalier_core::training::warm_start::SourceAdapter;
use std::sync::Arc;

/// Finds the adapter and reads what the job's defaults depend on.
///
/// # Errors
/// `Invalid` if the reference is not an id, a name or `name@version`; `NotFound`; `Conflict` if the adapter's files are damaged or
/// belong to another base model.
pub async fn resolve_initial_adapter(state: &AppState, owner: &str, reference_text: &str) -> Result<SourceAdapter> {
    let reference = Reference::parse(reference_text).map_err(with_from_adapter_pointer)?;
    let adapter = state.store.adapter(owner, &reference).await.map_err(with_from_adapter_pointer)?;
    let version = adapter.description.version;
    let (base, folder) = (Arc::clone(&state.base), state.data_dir.adapters_dir());
    run_blocking("loading the initial adapter of a job", move || {
        let manifest = artifact::load_published(&folder, &version, &base)?.manifest;
        Ok(SourceAdapter {
            version,
            task: manifest.task,
            method: manifest.method,
            labels: manifest.labels,
            max_length: manifest.max_length,
        })
    })
    .await
}

fn with_from_adapter_pointer(error: Error) -> Error {
    let point_at_field = |problem: Problem| {
        let field_error = FieldError::at_pointer("/from_adapter", problem.detail.clone());
        problem.with_errors(vec![field_error])
    };
    match error {
        Error::Invalid(problem) => Error::Invalid(point_at_field(problem)),
        Error::NotFound(problem) => Error::NotFound(point_at_field(problem)),
        other => other,
    }
}
