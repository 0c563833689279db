//! Address of the client of a request: the peer of the connection, or the one that a trusted proxy names.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Address of the client, as an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

/// Whether a proxy in front of this server names the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedFor {
    /// The header is ignored, because a client can send any.
    #[default]
    Ignore,
    /// The last address of the header, which the proxy adds, is the client's.
    Trust,
}

/// Middleware that replaces the address of the peer by the one that the proxy names.
pub async fn read_forwarded_for(State(mode): State<ForwardedFor>, mut request: Request, next: Next) -> Response {
    if mode == ForwardedFor::Trust
        && let Some(address) = last_forwarded(request.headers())
    {
        request.extensions_mut().insert(ClientAddress(address));
    }
    next.run(request).await
}

fn last_forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_counts() {
        let headers = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (FORWARDED_FOR, value.parse().unwrap())).collect()
        };
        assert_eq!(last_forwarded(&headers(&["203.0.113.9, 192.0.2.7"])), "192.0.2.7".parse().ok());
        assert_eq!(last_forwarded(&headers(&["203.0.113.9", "2001:db8::1"])), "2001:db8::1".parse().ok());
        assert_eq!(last_forwarded(&headers(&["unknown"])), None);
    }
}
