//! Whom a request goes to, and where a redirect leads. Decides who may see the token.

use ureq::http::Uri;

/// Scheme, host and port: two addresses with the same one are the same server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` where the address is not one of HTTP.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(default_port) })
    }

    pub fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    /// A server on this machine, which no proxy stands in front of.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host == "[::1]" || self.host.starts_with("127.")
    }
}

/// The address that a redirect from `from` leads to; `None` where it leaves HTTP, or gives encryption up.
pub(super) fn resolve_redirect(from: &str, location: &str) -> Option<String> {
    let from_origin = Origin::parse(from)?;
    let target_url = match location {
        absolute if absolute.contains("://") => absolute.to_string(),
        other_host if other_host.starts_with("//") => format!("{}:{other_host}", from_origin.scheme),
        path if path.starts_with('/') => {
            let uri: Uri = from.parse().ok()?;
            format!("{}://{}{path}", from_origin.scheme, uri.authority()?)
        }
        _ => return None,
    };
    let target_origin = Origin::parse(&target_url)?;
    (target_origin.is_encrypted() || !from_origin.is_encrypted()).then_some(target_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_includes_port() {
        assert_eq!(Origin::parse("https://hub/a"), Origin::parse("HTTPS://Hub:443/b?c"));
        assert_ne!(Origin::parse("http://hub/a"), Origin::parse("https://hub/a"));
        assert_ne!(Origin::parse("http://127.0.0.1:1/a"), Origin::parse("http://127.0.0.1:2/a"));
        assert_ne!(Origin::parse("https://hub/a"), Origin::parse("https://hub.evil/a"));
        assert_eq!(Origin::parse("ftp://hub/a"), None);
    }

    #[test]
    fn resolves_relative_redirects() {
        assert_eq!(resolve_redirect("https://hub/a/b", "/c?d").as_deref(), Some("https://hub/c?d"));
        assert_eq!(resolve_redirect("http://hub:81/a", "//cdn/c").as_deref(), Some("http://cdn/c"));
        assert_eq!(resolve_redirect("http://hub/a", "https://cdn/c").as_deref(), Some("https://cdn/c"));
    }

    #[test]
    fn rejects_redirects_that_downgrade_to_http() {
        assert_eq!(resolve_redirect("https://hub/a", "http://cdn/c"), None);
        assert_eq!(resolve_redirect("https://hub/a", "file:///etc/passwd"), None);
        assert_eq!(resolve_redirect("https://hub/a", "c"), None);
    }
}
