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
    pub fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(default) })
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
pub(super) fn follow(from: &str, location: &str) -> Option<String> {
    let here = Origin::of(from)?;
    let to = match location {
        absolute if absolute.contains("://") => absolute.to_string(),
        other_host if other_host.starts_with("//") => format!("{}:{other_host}", here.scheme),
        path if path.starts_with('/') => {
            let uri: Uri = from.parse().ok()?;
            format!("{}://{}{path}", here.scheme, uri.authority()?)
        }
        _ => return None,
    };
    let there = Origin::of(&to)?;
    (there.is_encrypted() || !here.is_encrypted()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_belongs_to_the_origin() {
        assert_eq!(Origin::of("https://hub/a"), Origin::of("HTTPS://Hub:443/b?c"));
        assert_ne!(Origin::of("http://hub/a"), Origin::of("https://hub/a"));
        assert_ne!(Origin::of("http://127.0.0.1:1/a"), Origin::of("http://127.0.0.1:2/a"));
        assert_ne!(Origin::of("https://hub/a"), Origin::of("https://hub.evil/a"));
        assert_eq!(Origin::of("ftp://hub/a"), None);
    }

    #[test]
    fn a_redirect_may_be_relative() {
        assert_eq!(follow("https://hub/a/b", "/c?d").as_deref(), Some("https://hub/c?d"));
        assert_eq!(follow("http://hub:81/a", "//cdn/c").as_deref(), Some("http://cdn/c"));
        assert_eq!(follow("http://hub/a", "https://cdn/c").as_deref(), Some("https://cdn/c"));
    }

    #[test]
    fn a_redirect_never_gives_encryption_up() {
        assert_eq!(follow("https://hub/a", "http://cdn/c"), None);
        assert_eq!(follow("https://hub/a", "file:///etc/passwd"), None);
        assert_eq!(follow("https://hub/a", "c"), None);
    }
}
