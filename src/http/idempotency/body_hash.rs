//! SHA-256 of a request body, computed while a handler reads it.

use crate::http::body_timeouts::BodyTimeouts;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::{Stream, StreamExt};
use memchr::memmem::Finder;
use sha2::{Digest, Sha256};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Hash of a body. The boundaries of a form are left out, because clients draw a new one for every attempt.
pub(super) struct BodyHasher {
    hasher: Sha256,
    boundary: Option<Boundary>,
}

struct Boundary {
    finder: Finder<'static>,
    /// Last bytes, which may be the beginning of a boundary.
    tail: Vec<u8>,
    /// The last boundary was that of the end: what follows is not part of the form.
    is_after_end: bool,
}

impl BodyHasher {
    pub fn new(headers: &HeaderMap) -> Self {
        let boundary = boundary(headers).map(|boundary| Boundary {
            finder: Finder::new(format!("--{boundary}").as_bytes()).into_owned(),
            tail: Vec::new(),
            is_after_end: false,
        });
        Self { hasher: Sha256::new(), boundary }
    }

    pub fn update(&mut self, chunk: &[u8]) {
        let Self { hasher, boundary } = self;
        match boundary {
            None => hasher.update(chunk),
            Some(boundary) if boundary.is_after_end => {}
            Some(boundary) => boundary.update(hasher, chunk),
        }
    }

    /// Hexadecimal hash of what was read.
    pub fn finish(mut self) -> String {
        if let Some(boundary) = self.boundary.filter(|boundary| !boundary.is_after_end) {
            self.hasher.update(&boundary.tail);
        }
        hex::encode(self.hasher.finalize())
    }
}

impl Boundary {
    fn update(&mut self, hasher: &mut Sha256, chunk: &[u8]) {
        let mut text = std::mem::take(&mut self.tail);
        text.extend_from_slice(chunk);
        let length = self.finder.needle().len();
        let mut start = 0;
        while let Some(found) = self.finder.find(&text[start..]).map(|offset| start + offset) {
            // The two bytes after a boundary tell whether it is the last one.
            let Some(suffix) = text.get(found + length..found + length + 2) else { break };
            hasher.update(&text[start..found]);
            hasher.update([0]);
            start = found + length;
            if suffix == b"--" {
                self.is_after_end = true;
                return;
            }
        }
        let keep = text.len().saturating_sub(length + 1).max(start);
        hasher.update(&text[start..keep]);
        self.tail = text.split_off(keep);
    }
}

/// Returns the boundary of a form.
fn boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    extract::media_type(headers).filter(|media_type| media_type.starts_with("multipart/"))?;
    let parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.trim().split_once('='));
    let (_, boundary) = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    let boundary = boundary.trim().trim_matches('"');
    (!boundary.is_empty()).then(|| boundary.to_string())
}

/// Body that is hashed while it is read, and what its reader has left.
#[derive(Clone)]
pub(super) struct HashedBody(Arc<Mutex<State>>);

struct State {
    hasher: Option<BodyHasher>,
    rest: Option<BodyDataStream>,
}

impl HashedBody {
    /// Returns a body for the reader, and the hash to finish afterwards.
    pub fn new(headers: &HeaderMap, body: Body) -> (Body, Self) {
        let hashed = Self(Arc::new(Mutex::new(State { hasher: Some(BodyHasher::new(headers)), rest: None })));
        let reader = HashingStream { inner: Some(body.into_data_stream()), hashed: hashed.clone() };
        (Body::from_stream(reader), hashed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the handler has left of the body, and returns the hash. What does not arrive is left out.
    pub async fn finish(&self, timeouts: BodyTimeouts, limit: u64) -> String {
        let (hasher, rest) = {
            let mut state = self.state();
            (state.hasher.take(), state.rest.take())
        };
        let mut hasher = hasher.unwrap_or_else(|| BodyHasher::new(&HeaderMap::new()));
        if let Some(rest) = rest
            && let Err(error) = hash_stream(&mut hasher, rest, timeouts, limit).await
        {
            tracing::debug!(error = error.detail, "the rest of a request body was not read");
        }
        hasher.finish()
    }
}

/// Hashes a whole body.
///
/// # Errors
/// 413 beyond `limit` bytes; 408 or 400 for a body that breaks off.
pub(super) async fn hash_body(
    headers: &HeaderMap,
    body: Body,
    timeouts: BodyTimeouts,
    limit: u64,
) -> ApiResult<String> {
    let mut hasher = BodyHasher::new(headers);
    hash_stream(&mut hasher, body.into_data_stream(), timeouts, limit).await?;
    Ok(hasher.finish())
}

async fn hash_stream(
    hasher: &mut BodyHasher,
    body: BodyDataStream,
    mut timeouts: BodyTimeouts,
    limit: u64,
) -> ApiResult<()> {
    let mut chunks = extract::body_chunks(Body::from_stream(body));
    let mut bytes = 0;
    while let Some(chunk) = timeouts.next_chunk(chunks.next()).await? {
        bytes += chunk.len() as u64;
        if bytes > limit {
            return Err(ApiError::payload_too_large("the body", limit));
        }
        hasher.update(&chunk);
    }
    Ok(())
}

struct HashingStream {
    inner: Option<BodyDataStream>,
    hashed: HashedBody,
}

impl Stream for HashingStream {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let polled = inner.poll_next_unpin(context);
        match &polled {
            Poll::Ready(Some(Ok(chunk))) => {
                if let Some(hasher) = &mut self.hashed.state().hasher {
                    hasher.update(chunk);
                }
            }
            Poll::Ready(None | Some(Err(_))) => self.inner = None,
            Poll::Pending => {}
        }
        polled
    }
}

impl Drop for HashingStream {
    fn drop(&mut self) {
        self.hashed.state().rest = self.inner.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(content_type: &str, chunks: &[&[u8]]) -> String {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let mut hasher = BodyHasher::new(&headers);
        chunks.iter().for_each(|chunk| hasher.update(chunk));
        hasher.finish()
    }

    fn form(boundary: &str, content: &str) -> String {
        let part = |name: &str, text: &str| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        };
        format!("{}{}--{boundary}--\r\n", part("job", "{}"), part("dataset", content))
    }

    #[test]
    fn bodies_are_hashed_as_they_are() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash("application/json", &[b"ab", b"", b"c"]), expected);
    }

    #[test]
    fn boundary_of_a_form_does_not_count() {
        let of = |boundary: &str, content: &str| {
            hash(&format!("multipart/form-data; boundary=\"{boundary}\""), &[form(boundary, content).as_bytes()])
        };
        let expected = of("one", "text,label");
        assert_eq!(of("another-boundary", "text,label"), expected);
        assert_ne!(of("one", "text,labels"), expected);
        assert_ne!(of("one", "--text,label"), expected);
    }

    #[test]
    fn chunks_and_what_follows_the_form_do_not_count() {
        let (boundary, content_type) = ("a-b--a", "multipart/form-data; boundary=a-b--a");
        let whole = form(boundary, "text\n--a-b--\n-\n--a-b-");
        let expected = hash(content_type, &[whole.as_bytes()]);
        for size in 1..40 {
            let chunks: Vec<&[u8]> = whole.as_bytes().chunks(size).collect();
            assert_eq!(hash(content_type, &chunks), expected, "chunks of {size} bytes");
        }
        let trimmed = whole.trim_end();
        assert_eq!(hash(content_type, &[trimmed.as_bytes()]), expected);
        assert_eq!(hash(content_type, &[whole.as_bytes(), b"epilogue"]), expected);
    }

    #[tokio::test]
    async fn what_a_handler_does_not_read_is_hashed_too() {
        let timeouts = || BodyTimeouts::new(std::time::Duration::from_secs(5), 1, std::time::Duration::from_secs(5));
        let chunks = || {
            futures_util::stream::iter([&b"ab"[..], b"c"].map(|chunk| Ok::<_, axum::Error>(Bytes::from_static(chunk))))
        };
        let expected = hash_body(&HeaderMap::new(), Body::from("abc"), timeouts(), 10).await.unwrap();
        for read in 0..=3 {
            let (body, hashed) = HashedBody::new(&HeaderMap::new(), Body::from_stream(chunks()));
            let mut stream = body.into_data_stream();
            for _ in 0..read {
                let _ = stream.next().await;
            }
            drop(stream);
            assert_eq!(hashed.finish(timeouts(), 10).await, expected, "after {read} chunks");
        }
        let error = hash_body(&HeaderMap::new(), Body::from("abc"), timeouts(), 2).await.unwrap_err();
        assert_eq!(error.code, "too_large");
    }
}
