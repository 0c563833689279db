//! Checks the head of a request before hyper parses it.
//!
//! hyper answers a head that it cannot parse without a body, and drops `Content-Length` beside `Transfer-Encoding`, which
//! proxies may read differently (request smuggling). A head that passes here is one that hyper accepts.

use crate::http::error::ApiError;
use axum::http::{Method, StatusCode, Uri};
use httparse::{Error, Header, Request, Status};

/// Maximum number of header fields, as in hyper.
const MAX_FIELDS: usize = 100;

/// How the body that follows a head is delimited.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    /// Number of bytes; 0 without a body.
    Length(u64),
    Chunked,
}

/// Returns the length of the head, with the empty line at its end; `None` if the end is missing. `from` is where to search.
pub fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).filter(|index| bytes[*index] == b'\n').find_map(|index| match &bytes[index + 1..] {
        [b'\n', ..] => Some(index + 2),
        [b'\r', b'\n', ..] => Some(index + 3),
        _ => None,
    })
}

/// Checks a complete head.
///
/// # Errors
/// 400 (`malformed_request`) for a head that is not HTTP/1.1, 431 for too many fields.
pub fn check(head: &[u8]) -> Result<Framing, ApiError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = Request::new(&mut fields);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(malformed("the head is incomplete")),
        Err(Error::TooManyHeaders) => return Err(too_large(&format!("it has more than {MAX_FIELDS} fields"))),
        Err(error) => return Err(malformed(&error.to_string())),
    }
    if request.method.is_none_or(|method| Method::from_bytes(method.as_bytes()).is_err()) {
        return Err(malformed("the method is invalid"));
    }
    if request.path.is_none_or(|target| Uri::try_from(target).is_err()) {
        return Err(malformed("the target is not a valid URI"));
    }
    let is_http_11 = request.version == Some(1);
    match field_values(request.headers, "host").count() {
        1 => {}
        0 if !is_http_11 => {}
        0 => return Err(malformed("the field Host is missing")),
        _ => return Err(malformed("the field Host is repeated")),
    }
    framing(request.headers, is_http_11)
}

fn framing(fields: &[Header<'_>], is_http_11: bool) -> Result<Framing, ApiError> {
    let mut length = None;
    for value in field_values(fields, "content-length") {
        let parsed = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let parsed = parsed.and_then(|text| text.parse::<u64>().ok()).filter(|length| *length <= u64::MAX - 2);
        match (parsed, length) {
            (Some(parsed), None) => length = Some(parsed),
            (Some(parsed), Some(length)) if parsed == length => {}
            _ => return Err(malformed("Content-Length is not one number")),
        }
    }
    let Some(last_encoding) = field_values(fields, "transfer-encoding").last() else {
        return Ok(Framing::Length(length.unwrap_or(0)));
    };
    let last_encoding = last_encoding.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    match last_encoding.eq_ignore_ascii_case(b"chunked") {
        _ if length.is_some() => Err(malformed("Content-Length and Transfer-Encoding exclude each other")),
        _ if !is_http_11 => Err(malformed("HTTP/1.0 has no Transfer-Encoding")),
        true => Ok(Framing::Chunked),
        false => Err(malformed("the last Transfer-Encoding must be chunked")),
    }
}

fn field_values<'a>(fields: &'a [Header<'_>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// Error for a head that exceeds `limit` bytes: 414 if the request line alone does, 431 otherwise.
pub fn too_long(head: &[u8], limit: usize) -> ApiError {
    match head.iter().take(limit).any(|byte| *byte == b'\n') {
        true => too_large(&format!("it has more than {limit} bytes (--max-headers)")),
        false => {
            let detail =
                format!("the URI is longer than this server's limit of {limit} bytes (--max-headers): send less");
            ApiError::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail)
        }
    }
}

fn too_large(reason: &str) -> ApiError {
    let detail = format!("the head of the request is too large: {reason}; send less");
    ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail)
}

fn malformed(reason: &str) -> ApiError {
    ApiError::bad_request("malformed_request", format!("the request is not valid HTTP/1.1: {reason}; correct it"))
}

/// Returns a head that hyper accepts in place of a refused one: with its target, if that is valid, and without a body.
pub fn replacement(head: &[u8]) -> Vec<u8> {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = if words.next() == Some(b"HEAD".as_slice()) { "HEAD" } else { "GET" };
    let target = words.next().and_then(|target| std::str::from_utf8(target).ok());
    let target = target.filter(|target| target.starts_with('/') && Uri::try_from(*target).is_ok()).unwrap_or("/");
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(fields: &str) -> Result<Framing, u16> {
        check(format!("POST /jobs HTTP/1.1\r\nhost: x\r\n{fields}\r\n").as_bytes())
            .map_err(|error| error.status.as_u16())
    }

    #[test]
    fn framing_follows_from_the_fields() {
        assert_eq!(outcome(""), Ok(Framing::Length(0)));
        assert_eq!(outcome("content-length: 12\r\n"), Ok(Framing::Length(12)));
        assert_eq!(outcome("content-length: 12\r\ncontent-length: 12\r\n"), Ok(Framing::Length(12)));
        assert_eq!(outcome("transfer-encoding: chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(outcome("transfer-encoding: gzip, Chunked\r\n"), Ok(Framing::Chunked));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length:\r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: chunked, gzip\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n",
        ] {
            assert_eq!(outcome(fields), Err(400), "{fields}");
        }
        assert!(check(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn malformed_head_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/2.0\r\nhost: x\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
            "GE(T / HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET /\u{1} HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nbad name: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nname: a\u{0}b\r\n\r\n",
        ] {
            assert_eq!(check(head.as_bytes()).map_err(|error| error.status.as_u16()), Err(400), "{head:?}");
        }
        assert_eq!(outcome(&"a: b\r\n".repeat(100)), Err(431));
        assert!(check(b"GET / HTTP/1.0\r\n\r\n").is_ok());
    }

    #[test]
    fn end_of_the_head_is_found_wherever_it_arrives() {
        for (text, end) in [("a\r\n\r\nb", Some(5)), ("a\n\nb", Some(3)), ("a\r\nb\r\n\r", None), ("a\r\n\n", Some(4))]
        {
            assert_eq!(find_end(text.as_bytes(), 0), end, "{text:?}");
        }
        assert_eq!(find_end(b"a\r\n\r\n\r\n", 3), Some(7));
    }

    #[test]
    fn replacement_keeps_a_valid_target() {
        for (head, line) in [
            ("POST /v1/models HTTP/1.1\r\n", "GET /v1/models HTTP/1.1\r\n"),
            ("HEAD /x", "HEAD /x HTTP/1.1\r\n"),
            ("GET \u{1} HTTP/1.1\r\n", "GET / HTTP/1.1\r\n"),
            ("", "GET / HTTP/1.1\r\n"),
        ] {
            let replacement = replacement(head.as_bytes());
            assert!(replacement.starts_with(line.as_bytes()), "{head:?}");
            assert_eq!(check(&replacement).map_err(|error| error.detail), Ok(Framing::Length(0)));
        }
    }
}
