//! Checks the host that a request names, against DNS rebinding: a web page whose domain resolves to this server's address could
//! otherwise read every answer of a server without API keys.
//!
//! IP addresses and `localhost` need no entry, because a page's own domain is neither.

use super::error::{ApiError, ApiResult};
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use espalier_core::error::{Error, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Host names under which clients may address the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    Any,
    /// `localhost`, IP addresses, and these names in lower case.
    Names(Vec<String>),
}

impl AllowedHosts {
    /// Parses host names; `*` allows every name.
    ///
    /// # Errors
    /// `Invalid` (`invalid_host`) for text that is not the name of a host.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut parsed = Vec::new();
        for name in names {
            match host_name(name) {
                _ if name == "*" => return Ok(Self::Any),
                Some(host) => parsed.push(host),
                None => {
                    let detail = format!(
                        "\"{name}\" is not the name of a host: --allowed-hosts takes names such as models.example.com, separated \
                         by commas, or *"
                    );
                    return Err(Error::invalid("invalid_host", detail));
                }
            }
        }
        Ok(Self::Names(parsed))
    }

    /// Returns whether a request may name this host, the value of `Host` with or without a port.
    fn allows(&self, authority: &str) -> bool {
        match (self, host_name(authority)) {
            (Self::Any, _) => true,
            (Self::Names(names), Some(host)) => host == "localhost" || is_ip_address(&host) || names.contains(&host),
            (Self::Names(_), None) => false,
        }
    }
}

/// Returns the host in lower case, without the port and the dot of a fully qualified name.
fn host_name(authority: &str) -> Option<String> {
    let authority: Authority = authority.parse().ok().filter(|_| !authority.contains('@'))?;
    let rest = authority.as_str().strip_prefix(authority.host())?;
    if !rest.is_empty() && !rest.starts_with(':') {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    (!host.is_empty()).then(|| host.to_string())
}

fn is_ip_address(host: &str) -> bool {
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.parse::<Ipv4Addr>().is_ok() || ipv6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

/// Middleware that answers 421 to a request for a host that is not allowed. Requests without a host, which browsers never send,
/// pass.
pub async fn check_host(State(allowed): State<AllowedHosts>, request: Request, next: Next) -> ApiResult<Response> {
    let target = request.uri().authority().map(Authority::as_str);
    let headers = request.headers().get_all(HOST).iter().map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let refused = target.into_iter().chain(headers).find(|host| !allowed.allows(host));
    match refused.map(host_not_allowed) {
        Some(error) => Err(error),
        None => Ok(next.run(request).await),
    }
}

fn host_not_allowed(host: &str) -> ApiError {
    let detail = format!(
        "\"{host}\" is not a name of this server: use localhost or its IP address, or start the server with --allowed-hosts \
         (ESPALIER_ALLOWED_HOSTS) and the name"
    );
    ApiError::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_and_addresses_are_allowed_with_and_without_port() {
        let allowed = AllowedHosts::parse([]).unwrap();
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "192.168.1.7:80",
        ] {
            assert!(allowed.allows(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "user@localhost",
            "[::1].evil.example",
            "[evil]",
            "",
            ":8080",
        ] {
            assert!(!allowed.allows(host), "{host}");
        }
    }

    #[test]
    fn configured_names_are_allowed_in_any_case() {
        let allowed = AllowedHosts::parse(["Models.example.com", "espalier"]).unwrap();
        for (host, is_allowed) in
            [("models.EXAMPLE.com:443", true), ("espalier:8080", true), ("example.com", false), ("localhost", true)]
        {
            assert_eq!(allowed.allows(host), is_allowed, "{host}");
        }
        assert!(AllowedHosts::parse(["a", "*"]).unwrap().allows("evil.example"));
        assert!(AllowedHosts::parse(["https://example.com"]).unwrap_err().to_string().contains("https://example.com"));
    }
}
