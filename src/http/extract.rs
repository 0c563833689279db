//! What handlers take from a request: a JSON body, a query, an id, each refused with an exact problem.
//!
//! Knows nothing of single routes, nor of files (`upload`).

use super::error::{Answer, Refusal};
use super::json;
use super::state::State;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How much of a body is read, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub idle: Duration,
    pub total: Duration,
    pub until: Instant,
}

impl Pace {
    /// From now on.
    pub fn new(idle: Duration, total: Duration) -> Self {
        Self { idle, total, until: Instant::now() + total }
    }

    /// The next piece of a body, if it comes in time.
    pub async fn next<T>(&self, piece: impl Future<Output = T>) -> Answer<T> {
        let idle = Instant::now() + self.idle;
        let (limit, until) = if idle < self.until { (self.idle, idle) } else { (self.total, self.until) };
        tokio::time::timeout_at(until, piece).await.map_err(|_| Refusal::too_slow(limit))
    }
}

/// A JSON body. Unknown fields, wrong types and missing fields are named by their pointer.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<State> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &State) -> Answer<Self> {
        let pace = Pace::new(state.settings.idle, state.settings.max_body_time);
        body_of(request, state.settings.max_json_bytes, pace).await.map(Self)
    }
}

/// Reads a request's JSON body up to `limit` bytes.
pub async fn body_of<T: DeserializeOwned>(request: Request, limit: usize, pace: Pace) -> Answer<T> {
    match media_type(request.headers()) {
        Some(kind) if is_json(&kind) => {}
        Some(kind) => return Err(Refusal::unsupported(format!("{kind} is not read here: send application/json"))),
        None => return Err(Refusal::unsupported("the body has no content type: send application/json")),
    }
    refuse_announced(request.headers(), "the JSON body", limit as u64)?;
    json::parse(&collect(pieces(request.into_body()), "the JSON body", limit, pace).await?)
}

/// A body as a stream of pieces.
pub fn pieces(body: Body) -> impl Stream<Item = Answer<Bytes>> + Unpin {
    let broken = |error| Refusal::unreadable("broken_body", format!("the body broke off ({error}): send it again"));
    body.into_data_stream().map(move |piece| piece.map_err(broken))
}

/// All pieces in memory, up to `limit` bytes.
pub async fn collect(
    mut pieces: impl Stream<Item = Answer<Bytes>> + Unpin,
    what: &str,
    limit: usize,
    pace: Pace,
) -> Answer<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(piece) = pace.next(pieces.next()).await? {
        let piece = piece?;
        if whole.len() + piece.len() > limit {
            return Err(Refusal::too_large(what, limit as u64));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

/// Refuses a body that says itself that it is too large, before it is read.
pub fn refuse_announced(headers: &HeaderMap, what: &str, limit: u64) -> Answer<()> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(length) if length > limit => Err(Refusal::too_large(what, limit)),
        _ => Ok(()),
    }
}

/// The content type in lower case and without its parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!kind.is_empty()).then_some(kind)
}

pub fn is_json(kind: &str) -> bool {
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The parameters of a query string. Unknown ones and wrong values are named.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Answer<Self> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|rejection| {
            let reason =
                std::error::Error::source(&rejection).map_or_else(|| rejection.to_string(), ToString::to_string);
            Refusal::from(espalier_core::error::Error::invalid(
                "invalid_query",
                format!("the query is wrong: {reason}"),
            ))
        })
    }
}

/// An id in the path. What is no id names nothing, so it is not found.
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let Key(text) = Key::from_request_parts(parts, state).await?;
        Uuid::parse_str(&text).map(Self).map_err(|_| {
            let detail = format!("\"{text}\" is not an id: give the UUID that the list shows");
            espalier_core::error::Error::not_found("not_found", detail).into()
        })
    }
}

/// The one parameter of the path, decoded.
pub struct Key(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| {
            Refusal::unreadable("unreadable_path", format!("the path is wrong: {}", rejection.body_text()))
        })
    }
}

#[cfg(test)]
mod tests;
