//! Compresses responses for clients that accept it. Streams of events and files that are compressed already stay as they are.

use async_compression::Level;
use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::TryStreamExt;
use std::io;
use tokio_util::io::{ReaderStream, StreamReader};

/// Size of a compressed chunk in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// Compression of a response; the last one is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Encoding {
    Gzip,
    Zstd,
}

/// Middleware that compresses responses of at least `min_bytes` bytes.
pub async fn compress_response(State(min_bytes): State<u64>, request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let encoding = accepted_encoding(request.headers());
    let mut response = next.run(request).await;
    if is_head || !is_compressible(&response, min_bytes) {
        return response;
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    let Some(encoding) = encoding else { return response };
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    response.map(|body| compress(body, encoding))
}

impl Encoding {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Returns the encoding that the client prefers (RFC 9110, section 12.5.3); `None` if it accepts neither.
fn accepted_encoding(headers: &HeaderMap) -> Option<Encoding> {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let weighted = values.flat_map(|value| value.split(',')).filter_map(|item| {
        let mut parts = item.split(';').map(|part| part.trim().to_ascii_lowercase());
        let encoding = Encoding::from_name(&parts.next()?)?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").map(|weight| weight.parse::<f32>().unwrap_or(0.0)));
        Some((weight.unwrap_or(1.0), encoding))
    });
    let accepted = weighted.filter(|(weight, _)| *weight > 0.0);
    accepted
        .max_by(|(one, first), (other, second)| one.total_cmp(other).then(first.cmp(second)))
        .map(|(_, encoding)| encoding)
}

/// Returns whether a response has text of at least `min_bytes` bytes, as far as its size is known.
fn is_compressible(response: &Response, min_bytes: u64) -> bool {
    let headers = response.headers();
    let length =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()).and_then(|length| length.parse().ok());
    let length = response.body().size_hint().exact().or(length);
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // The bytes that an ETag stands for stay as they are.
    let is_fixed = headers.contains_key(CONTENT_ENCODING) || headers.contains_key(ETAG);
    length.is_none_or(|length| length >= min_bytes) && !is_fixed && is_text(media_type)
}

fn is_text(media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let is_document = ["json", "yaml", "javascript", "xml"].iter().any(|kind| media_type.ends_with(kind));
    media_type != "text/event-stream" && (media_type.starts_with("text/") || is_document)
}

fn compress(body: Body, encoding: Encoding) -> Body {
    let reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    match encoding {
        Encoding::Gzip => {
            let encoder = GzipEncoder::with_quality(reader, Level::Fastest);
            Body::from_stream(ReaderStream::with_capacity(encoder, CHUNK_BYTES))
        }
        Encoding::Zstd => {
            let encoder = ZstdEncoder::with_quality(reader, Level::Fastest);
            Body::from_stream(ReaderStream::with_capacity(encoder, CHUNK_BYTES))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_with_the_highest_weight_is_chosen() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some(Encoding::Zstd)),
            ("zstd;q=0.5, gzip", Some(Encoding::Gzip)),
            ("GZIP ; Q=0.2", Some(Encoding::Gzip)),
            ("gzip;q=0, zstd;q=0.0", None),
            ("gzip;q=high", None),
            ("identity", None),
            ("*", None),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(accepted_encoding(&headers), expected, "{value}");
        }
        assert_eq!(accepted_encoding(&HeaderMap::new()), None);
    }

    #[test]
    fn only_texts_from_the_minimum_size_are_compressed() {
        let is_compressed = |media_type: &str, length: usize| {
            let mut response = Response::new(Body::from(vec![0; length]));
            response.headers_mut().insert(CONTENT_TYPE, media_type.parse().unwrap());
            is_compressible(&response, 100)
        };
        for media_type in
            ["application/json", "application/problem+json", "text/csv; charset=utf-8", "application/yaml"]
        {
            assert!(is_compressed(media_type, 100) && !is_compressed(media_type, 99), "{media_type}");
        }
        for media_type in ["text/event-stream", "application/zip", "application/octet-stream", "image/png"] {
            assert!(!is_compressed(media_type, 1000), "{media_type}");
        }
    }
}
