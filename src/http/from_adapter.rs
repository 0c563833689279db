//! The adapter that a job is to start from: looked up, and read as far as the job's defaults depend on it.
//!
//! Knows nothing of what a job does with it.

use super::state::State;
use super::work::aside;
use crate::store::Reference;
use espalier_core::artifact;
use espalier_core::error::{Error, Fault, Result};
use espalier_core::training::warm_start::Origin;
use std::sync::Arc;

/// # Errors
/// `Invalid` for what is no id, name or `name@version`; `NotFound`; `Conflict` where its files are damaged or made for
/// another base.
pub async fn find(state: &State, owner: &str, text: &str) -> Result<Origin> {
    let reference = Reference::parse(text).map_err(at_field)?;
    let adapter = state.store.adapter(owner, &reference).await.map_err(at_field)?;
    let version = adapter.description.version;
    let (base, folder) = (Arc::clone(&state.base), state.folder.adapters());
    aside("reading the adapter that a job starts from", move || {
        let card = artifact::read(&folder, &version, &base)?.card;
        Ok(Origin { version, task: card.task, method: card.method, labels: card.labels, max_length: card.max_length })
    })
    .await
}

fn at_field(error: Error) -> Error {
    let name = |mut problem: espalier_core::error::Problem| {
        problem.faults = vec![Fault::at_pointer("/from_adapter", problem.detail.clone())];
        problem
    };
    match error {
        Error::Invalid(problem) => Error::Invalid(name(problem)),
        Error::NotFound(problem) => Error::NotFound(name(problem)),
        other => other,
    }
}
