//! Decompresses request bodies. Limits on sizes hold for the decompressed bytes, which are produced in small chunks as they are read.

use super::error::{ApiError, ApiResult};
use async_compression::tokio::bufread::{GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, TryStreamExt};
use std::{fmt, io};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

/// Size of a decompressed chunk in bytes.
const CHUNK_BYTES: usize = 16 * 1024;
/// Maximum window of zstd frames: 8 MiB (RFC 9659).
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// Compression of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    /// The zlib format, as HTTP defines it.
    Deflate,
    Zstd,
}

/// Middleware that replaces a compressed body with its content.
pub async fn decompress_request(mut request: Request, next: Next) -> ApiResult<Response> {
    let Some(encoding) = body_encoding(request.headers())? else { return Ok(next.run(request).await) };
    request.headers_mut().remove(CONTENT_ENCODING);
    request.headers_mut().remove(CONTENT_LENGTH);
    Ok(next.run(request.map(|body| decompress(body, encoding))).await)
}

/// Returns the encoding of a body; `None` for one that is not compressed.
///
/// # Errors
/// 415 for another encoding, or more than one.
fn body_encoding(headers: &HeaderMap) -> ApiResult<Option<Encoding>> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter().filter(|value| !value.is_empty());
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(CONTENT_ENCODING) {
            true => Err(ApiError::unsupported_encoding("more than one content encoding")),
            false => Ok(None),
        };
    };
    let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
    match name.as_str() {
        "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(Encoding::Gzip)),
        "deflate" => Ok(Some(Encoding::Deflate)),
        "zstd" => Ok(Some(Encoding::Zstd)),
        other => Err(ApiError::unsupported_encoding(&format!("the content encoding \"{other}\""))),
    }
}

fn decompress(body: Body, encoding: Encoding) -> Body {
    let reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    match encoding {
        Encoding::Gzip => {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            decoded_body(decoder, encoding)
        }
        Encoding::Deflate => decoded_body(ZlibDecoder::new(reader), encoding),
        Encoding::Zstd => {
            let mut decoder = ZstdDecoder::with_params(reader, &[DParameter::window_log_max(MAX_ZSTD_WINDOW_LOG)]);
            decoder.multiple_members(true);
            decoded_body(decoder, encoding)
        }
    }
}

fn decoded_body(decoder: impl AsyncRead + Send + 'static, encoding: Encoding) -> Body {
    let to_body_error = move |error: io::Error| match error.downcast::<axum::Error>() {
        Ok(error) => error,
        Err(cause) => axum::Error::new(InvalidEncoding { encoding, cause }),
    };
    let chunks = ReaderStream::with_capacity(decoder, CHUNK_BYTES).map_err(to_body_error);
    // Many chunks may come from one piece of the body, without waiting for the client.
    Body::from_stream(chunks.then(|chunk| async {
        tokio::task::consume_budget().await;
        chunk
    }))
}

/// Error of a body that is not in its encoding.
#[derive(Debug)]
pub struct InvalidEncoding {
    encoding: Encoding,
    cause: io::Error,
}

impl fmt::Display for InvalidEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.encoding {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate (zlib)",
            Encoding::Zstd => "zstd with a window of at most 8 MiB",
        };
        write!(f, "the body is not {name}, which its Content-Encoding says ({})", self.cause)
    }
}

impl std::error::Error for InvalidEncoding {}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn encoding_of(values: &[&str]) -> Result<Option<Encoding>, StatusCode> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, value.parse().unwrap());
        }
        body_encoding(&headers).map_err(|error| error.status)
    }

    #[test]
    fn one_known_encoding_is_read() {
        assert_eq!(encoding_of(&[]), Ok(None));
        assert_eq!(encoding_of(&["identity"]), Ok(None));
        assert_eq!(encoding_of(&["GZIP"]), Ok(Some(Encoding::Gzip)));
        assert_eq!(encoding_of(&["x-gzip"]), Ok(Some(Encoding::Gzip)));
        assert_eq!(encoding_of(&["deflate"]), Ok(Some(Encoding::Deflate)));
        assert_eq!(encoding_of(&[" zstd "]), Ok(Some(Encoding::Zstd)));
        for values in [&["br"][..], &["gzip, zstd"], &["gzip", "zstd"], &["rot13"]] {
            assert_eq!(encoding_of(values), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{values:?}");
        }
    }
}
