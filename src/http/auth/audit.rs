//! Writes what callers changed to the audit log: operation, object, status, caller, address and request id, never texts or keys.

use super::credential::Credential;
use crate::http::client_address::ClientAddress;
use crate::http::request_id::RequestId;
use crate::store::{NewAuditEntry, Store};
use axum::extract::{MatchedPath, Request};
use axum::http::header::LOCATION;
use axum::response::Response;
use espalier_core::error::Error;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Delays before the next attempts to write an entry while the database is unavailable.
const RETRY_DELAYS: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
];

/// Longer paths of objects are cut.
const MAX_OBJECT_LENGTH: usize = 200;

/// Operation ids, by method and route.
pub type Operations = Arc<HashMap<(String, String), String>>;

/// Path of the object that a handler created, for responses without `location`.
#[derive(Clone)]
pub struct AuditObject(pub String);

/// What is known about a change before it is made.
pub struct AuditContext {
    entry: NewAuditEntry,
}

impl AuditContext {
    pub fn new(operations: &Operations, request: &Request, credential: &Credential) -> Self {
        let extensions = request.extensions();
        let route = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let (method, path) = (request.method().to_string(), request.uri().path());
        let action = operations.get(&(method, route.to_string())).map_or(route, String::as_str).to_string();
        let entry = NewAuditEntry {
            owner: Some(credential.owner.name.clone()),
            credential: Some(credential.name.clone()),
            action,
            object: route.contains('{').then(|| shorten(path)),
            status: 0,
            client_address: extensions.get::<ClientAddress>().map(|address| address.0.to_string()),
            request_id: extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
        };
        Self { entry }
    }

    /// The entry, with the status of the response and the object that it names.
    pub fn into_entry(self, response: &Response) -> NewAuditEntry {
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(shorten);
        let created = response.extensions().get::<AuditObject>().map(|object| object.0.clone());
        let object = location.or(created).or(self.entry.object);
        NewAuditEntry { status: response.status().as_u16(), object, ..self.entry }
    }
}

/// Writes the entry of a change; later, while the database is unavailable. An entry that cannot be written is logged: the change has been
/// made.
pub async fn write(store: &Arc<dyn Store>, entry: NewAuditEntry) {
    match store.add_audit_entry(entry.clone()).await {
        Err(Error::Busy { .. }) => drop(tokio::spawn(write_later(Arc::clone(store), entry))),
        Err(error) => report_missing(&error, &entry),
        Ok(()) => {}
    }
}

async fn write_later(store: Arc<dyn Store>, entry: NewAuditEntry) {
    let mut last_error = None;
    for delay in RETRY_DELAYS {
        tokio::time::sleep(delay).await;
        match store.add_audit_entry(entry.clone()).await {
            Ok(()) => return,
            Err(error) => last_error = Some(error),
        }
    }
    if let Some(error) = last_error {
        report_missing(&error, &entry);
    }
}

fn report_missing(error: &Error, entry: &NewAuditEntry) {
    let NewAuditEntry { action, request_id, object, owner, credential, status, .. } = entry;
    tracing::error!(%error, action, request_id, object, owner, credential, status, "a change is missing in the audit log");
}

fn shorten(path: &str) -> String {
    path.chars().take(MAX_OBJECT_LENGTH).collect()
}
