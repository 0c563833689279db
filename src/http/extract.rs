//! Extractors for JSON bodies, query strings and path parameters, with exact error responses.

use super::auth::Caller;
use super::body_memory::BodyReservation;
use super::body_timeouts::BodyTimeouts;
use super::error::{ApiError, ApiResult};
use super::json;
use super::request_decompression::InvalidEncoding;
use super::spawn::run_blocking;
use super::state::AppState;
use crate::serving::{Owner, OwnerSemaphore};
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use espalier_core::error::{Error, Problem, json_pointer};
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use std::sync::LazyLock;
use uuid::Uuid;

/// Larger JSON bodies are parsed on a blocking thread, and their memory is bounded: 64 KiB take a millisecond at most.
pub const MAX_SMALL_BODY_BYTES: usize = 64 * 1024;

/// Held while a large JSON body is parsed; owners that wait take turns.
static LARGE_BODIES: LazyLock<OwnerSemaphore> = LazyLock::new(|| OwnerSemaphore::new(1));

/// A received JSON body and its sender.
pub struct ReceivedBody {
    pub owner: Owner,
    pub bytes: Vec<u8>,
}

/// Extracts a JSON body. Errors name unknown, missing and mistyped fields by pointer.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<AppState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        read_json_body(request, state.settings.max_json_bytes, BodyTimeouts::start(&state.settings)).await.map(Self)
    }
}

/// Reads and parses a JSON body of at most `limit` bytes.
pub async fn read_json_body<T: DeserializeOwned + Send + 'static>(
    request: Request,
    limit: usize,
    timeouts: BodyTimeouts,
) -> ApiResult<T> {
    parse_json(read_json_bytes(request, limit, timeouts).await?).await
}

/// Reads the text of a JSON body of at most `limit` bytes.
pub async fn read_json_bytes(request: Request, limit: usize, mut timeouts: BodyTimeouts) -> ApiResult<ReceivedBody> {
    match media_type(request.headers()) {
        Some(kind) if is_json(&kind) => {}
        Some(kind) => {
            return Err(ApiError::unsupported_media_type(format!("{kind} is not read here: send application/json")));
        }
        None => return Err(ApiError::unsupported_media_type("the body has no content type: send application/json")),
    }
    check_content_length(request.headers(), "the JSON body", limit as u64)?;
    let reservation = request.extensions().get::<BodyReservation>().cloned();
    let length = content_length(request.headers()).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    if let Some(reservation) = reservation.as_ref().filter(|_| length > MAX_SMALL_BODY_BYTES) {
        // Refused before it is received.
        reservation.check(length)?;
    }
    let (charset, owner) = (charset(request.headers()), sender(request.extensions()));
    let (chunks, body) = (body_chunks(request.into_body()), Vec::with_capacity(length));
    let body = collect_chunks(chunks, body, "the JSON body", limit, &mut timeouts, reservation.as_ref()).await?;
    match charset.filter(|charset| !is_utf8(charset) && !body.is_ascii()) {
        Some(charset) => {
            Err(ApiError::unsupported_media_type(format!("the charset {charset} is not read: send UTF-8")))
        }
        None => Ok(ReceivedBody { owner, bytes: body }),
    }
}

/// Owner who sends a request; no name where nobody is authenticated.
pub fn sender(extensions: &Extensions) -> Owner {
    extensions.get::<Caller>().map_or_else(Owner::default, |caller| Owner::from(caller.owner.as_str()))
}

/// Parses a JSON body; a large one on a blocking thread.
pub async fn parse_json<T: DeserializeOwned + Send + 'static>(body: ReceivedBody) -> ApiResult<T> {
    parse_body(body, |body| json::parse(&body)).await
}

/// Parses a body with `parse`, which gets UTF-8 without a byte order mark; a large one on a blocking thread.
pub async fn parse_body<T: Send + 'static>(
    ReceivedBody { owner, bytes: body }: ReceivedBody,
    parse: impl FnOnce(Vec<u8>) -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    match body.len() <= MAX_SMALL_BODY_BYTES {
        true => parse(json::prepare(body)?),
        false => {
            // One at a time, so that large bodies do not take the processor from small requests.
            let permit = LARGE_BODIES.acquire(&owner).await;
            // The work keeps the permit when its client disconnects.
            let parse = move || {
                let _permit = permit;
                Ok(json::prepare(body).and_then(parse))
            };
            run_blocking("parsing a JSON body", parse).await?
        }
    }
}

/// Converts a body into a stream of chunks.
pub fn body_chunks(body: Body) -> impl Stream<Item = ApiResult<Bytes>> + Unpin {
    body.into_data_stream().map(|chunk| chunk.map_err(broken_body))
}

fn broken_body(error: axum::Error) -> ApiError {
    let reason = error.to_string();
    let mut causes = std::iter::successors(Some(&error as &(dyn std::error::Error + 'static)), |error| error.source());
    match causes.any(<dyn std::error::Error>::is::<InvalidEncoding>) {
        true => ApiError::bad_request("invalid_encoding", format!("{reason}: compress it again")),
        false => ApiError::bad_request("broken_body", format!("the body broke off ({reason}): send it again")),
    }
}

/// Appends all chunks to `body`, up to `limit` bytes; a large body within the memory that is reserved for it.
pub async fn collect_chunks(
    mut chunks: impl Stream<Item = ApiResult<Bytes>> + Unpin,
    mut body: Vec<u8>,
    subject: &str,
    limit: usize,
    timeouts: &mut BodyTimeouts,
    reservation: Option<&BodyReservation>,
) -> ApiResult<Vec<u8>> {
    while let Some(chunk) = timeouts.next_chunk(chunks.next()).await? {
        let length = body.len() + chunk.len();
        if length > limit {
            return Err(ApiError::payload_too_large(subject, limit as u64));
        }
        if let Some(reservation) = reservation.filter(|_| length > MAX_SMALL_BODY_BYTES) {
            reservation.grow_to(length)?;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Rejects a body whose content length exceeds `limit`, before it is read.
pub fn check_content_length(headers: &HeaderMap, subject: &str, limit: u64) -> ApiResult<()> {
    match content_length(headers) {
        Some(length) if length > limit => Err(ApiError::payload_too_large(subject, limit)),
        _ => Ok(()),
    }
}

pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns the media type in lower case, without parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!media_type.is_empty()).then_some(media_type)
}

/// Returns the charset of the content type in lower case.
fn charset(headers: &HeaderMap) -> Option<String> {
    let parameters = headers
        .get(CONTENT_TYPE)?
        .to_str()
        .ok()?
        .split(';')
        .skip(1)
        .map(|parameter| parameter.trim().to_ascii_lowercase());
    parameters
        .filter_map(|parameter| parameter.strip_prefix("charset=").map(|name| name.trim_matches('"').to_string()))
        .next()
}

fn is_utf8(charset: &str) -> bool {
    matches!(charset, "utf-8" | "utf8" | "us-ascii" | "ascii")
}

pub fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Extracts query parameters. Errors name unknown parameters and invalid values.
pub struct QueryParams<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|rejection| {
            let reason =
                std::error::Error::source(&rejection).map_or_else(|| rejection.to_string(), ToString::to_string);
            invalid_query(&reason).into()
        })
    }
}

/// Error of a query; the reason begins with the parameter, or has its name in backticks.
fn invalid_query(reason: &str) -> Error {
    let (parameter, message) = reason.split_once(": ").unwrap_or(("", reason));
    let quoted = message.split('`').nth(1).filter(|_| parameter.is_empty() || message.starts_with("unknown field"));
    let pointer = json_pointer(&[quoted.unwrap_or(parameter)]);
    Error::Invalid(Problem::at_field("invalid_query", pointer, json::wording::of_query_value(message)))
}

/// Extracts an id from the path; 404 if it is not a UUID.
pub struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let PathParam(text) = PathParam::from_request_parts(parts, state).await?;
        parse_id(&text).map(Self)
    }
}

/// Extracts two ids from the path; 404 if one is not a UUID.
pub struct PathIds(pub Uuid, pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathIds {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let path = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let axum::extract::Path((first, second)) = path.map_err(unreadable_path)?;
        Ok(Self(parse_id(&first)?, parse_id(&second)?))
    }
}

fn parse_id(text: &str) -> ApiResult<Uuid> {
    Uuid::parse_str(text).map_err(|_| {
        let detail = format!("\"{text}\" is not an id: give the UUID that the list shows");
        Error::not_found("not_found", detail).into()
    })
}

fn unreadable_path(rejection: PathRejection) -> ApiError {
    ApiError::bad_request("unreadable_path", format!("the path is wrong: {}", rejection.body_text()))
}

/// Extracts the percent-decoded path parameter of a route with exactly one.
pub struct PathParam(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(unreadable_path)
    }
}

#[cfg(test)]
mod tests;
