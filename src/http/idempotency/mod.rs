//! The header `Idempotency-Key`: a POST that is sent again with the same key is not carried out again, but answered with the stored
//! response.
//!
//! A row in the store belongs to each key. It holds the id of the object that the request creates, so that an attempt after a crash finds
//! what the one before it has created. Only responses with a status of 2xx are stored: a request that failed changed nothing, and the same
//! key may be sent again.

mod body_hash;
mod response;

use super::auth::Caller;
use super::auth::route_scopes::{Activity, RoutePolicy};
use super::body_timeouts::BodyTimeouts;
use super::error::{ApiError, ApiResult};
use super::idempotency_header::IDEMPOTENCY_KEY;
use super::new_object_id::NewObjectId;
use super::state::{AppState, Settings};
use crate::store::{KeyedRequest, RequestClaim, RequestStart, StoredResponse};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use body_hash::{HashedBody, hash_body};
use sha2::{Digest, Sha256};
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

const MAX_KEY_LENGTH: usize = 255;
/// Time after which the key of a process that has ended is free for the next attempt.
const LEASE: Duration = Duration::from_secs(30);
const LEASE_EXTENSION_INTERVAL: Duration = Duration::from_secs(10);
const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reads `Idempotency-Key` on the POSTs among the routes that change something. The others compute: they give the same again, and their
/// responses may be long or streams. The routes need a [`Caller`], whose middleware carries a change out even if the client disconnects.
pub fn with_idempotency(routes: OpenApiRouter<AppState>, state: &AppState) -> OpenApiRouter<AppState> {
    routes.route_layer(from_fn_with_state(state.clone(), replay_or_carry_out))
}

async fn replay_or_carry_out(State(state): State<AppState>, mut request: Request, next: Next) -> ApiResult<Response> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if request.method() != Method::POST || RoutePolicy::of(&Method::POST, route).activity != Activity::Change {
        return Ok(next.run(request).await);
    }
    let Some(key) = read_key(request.headers())? else { return Ok(next.run(request).await) };
    let mut caller = Caller::of(request.extensions())?;
    let keyed = KeyedRequest {
        owner: caller.owner.clone(),
        key_hash: hex::encode(Sha256::digest(&key)),
        request_hash: hash_target(&request),
        object_id: Uuid::now_v7(),
        instance_id: state.data_dir.instance_id(),
    };
    match state.store.begin_request(&keyed, LEASE, state.settings.idempotency_ttl).await? {
        RequestStart::OtherRequest => Err(key_reused("another path or query")),
        RequestStart::InFlight => Err(in_flight()),
        RequestStart::Finished(finished) => {
            let (parts, body) = request.into_parts();
            let timeouts = BodyTimeouts::start(&state.settings);
            match hash_body(&parts.headers, body, timeouts, max_body_bytes(&state.settings)).await? {
                hash if hash == finished.body_hash => response::replay(finished.response),
                _ => Err(key_reused("another body")),
            }
        }
        RequestStart::Started(claim) => {
            tracing::debug!(attempt = claim.epoch, "request with an idempotency key started");
            caller.new_object_id = NewObjectId::of(&claim);
            request.extensions_mut().insert(caller);
            Ok(carry_out(state, claim, request, next).await)
        }
    }
}

/// Runs the handler while the lease is extended, and stores its response.
async fn carry_out(state: AppState, claim: RequestClaim, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (body, hashed) = HashedBody::new(&parts.headers, body);
    let handle = next.run(Request::from_parts(parts, body));
    let response = tokio::select! {
        response = handle => response,
        never = extend_lease(&state, &claim) => match never {},
    };
    if !response.status().is_success() {
        if let Err(error) = state.store.release_request(&claim).await {
            tracing::warn!(%error, "an idempotency key was not released; its lease ends");
        }
        return response;
    }
    let timeouts = BodyTimeouts::start(&state.settings);
    let body_hash = hashed.finish(timeouts, max_body_bytes(&state.settings)).await;
    let (stored, response) = response::to_stored(response, state.settings.idempotency_max_response).await;
    record(&state, &claim, &body_hash, &stored).await;
    response
}

/// A response that is not stored is sent nevertheless: the next attempt finds the object of the request by its id.
async fn record(state: &AppState, claim: &RequestClaim, body_hash: &str, response: &StoredResponse) {
    match state.store.finish_request(claim, body_hash, response).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!("another attempt of a request with an idempotency key has taken over"),
        Err(error) => tracing::warn!(%error, "the response of a request with an idempotency key was not stored"),
    }
}

async fn extend_lease(state: &AppState, claim: &RequestClaim) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LEASE_EXTENSION_INTERVAL).await;
        if let Err(error) = state.store.extend_request(claim, LEASE).await {
            tracing::warn!(%error, "the lease of an idempotency key was not extended; trying again");
        }
    }
}

/// Returns the key of a request.
///
/// # Errors
/// 400 for a key that is empty, too long, or not visible ASCII, and for more than one.
fn read_key(headers: &HeaderMap) -> ApiResult<Option<Vec<u8>>> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // The IETF's draft has the key in quotes, most clients do not.
    let text = value.as_bytes();
    let key = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let is_valid = (1..=MAX_KEY_LENGTH).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    match is_valid && values.next().is_none() {
        true => Ok(Some(key.to_vec())),
        false => {
            let detail = format!(
                "the header Idempotency-Key must be sent once, with 1 to {MAX_KEY_LENGTH} visible ASCII characters: a UUID serves"
            );
            Err(ApiError::bad_request("invalid_idempotency_key", detail))
        }
    }
}

/// Hash of the method, the path and the query.
fn hash_target(request: &Request) -> String {
    let uri = request.uri();
    hex::encode(Sha256::digest(format!("{} {}?{}", request.method(), uri.path(), uri.query().unwrap_or_default())))
}

fn max_body_bytes(settings: &Settings) -> u64 {
    settings.max_dataset_bytes.max(settings.max_adapter_bytes).saturating_add(settings.max_json_bytes as u64)
}

fn in_flight() -> ApiError {
    let detail = "a request with this Idempotency-Key is being carried out: wait for it, then send this one again to get its answer";
    ApiError::new(StatusCode::CONFLICT, "idempotency_key_in_flight", detail).with_retry_after(IN_FLIGHT_RETRY_AFTER)
}

fn key_reused(difference: &str) -> ApiError {
    let detail = format!(
        "this Idempotency-Key belongs to a request with {difference}: send that request again to get its answer, or choose a \
         new key"
    );
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&str]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&IDEMPOTENCY_KEY, value.parse().unwrap());
        }
        let key = read_key(&headers).map_err(|error| error.code)?;
        Ok(key.map(|key| String::from_utf8(key).unwrap()))
    }

    #[test]
    fn key_is_one_short_visible_text() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["8e03978e-40d5-43dd-bc93-6894a57f9324"]).unwrap().unwrap().len(), 36);
        assert_eq!(key(&["\"quoted\""]), key(&["quoted"]));
        assert!(key(&[&"x".repeat(255)]).is_ok());
        for values in [&[""][..], &["\"\""], &["two words"], &["a", "a"], &[&"x".repeat(256)]] {
            assert_eq!(key(values), Err("invalid_idempotency_key"), "{values:?}");
        }
    }
}
