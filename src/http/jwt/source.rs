//! Where the keys are loaded from: a file, or the `jwks_uri` of an OpenID Connect provider.

use super::keys::KeySet;
use espalier_core::error::{Context, Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Uri;

/// Maximum size of a key set in bytes.
const MAX_JWKS_BYTES: u64 = 1024 * 1024;
/// Maximum time of a request for the keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// File or URL of a JSON Web Key Set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    File(PathBuf),
    Url(Uri),
}

impl JwksSource {
    /// Parses an `https://` URL, an `http://` URL of this machine, or the path of a file.
    ///
    /// # Errors
    /// `Invalid` for a URL that is malformed or not encrypted.
    pub fn parse(text: &str) -> Result<Self> {
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let uri = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        match uri {
            Some(uri)
                if uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && is_loopback(&uri)) =>
            {
                Ok(Self::Url(uri))
            }
            _ => Err(Error::invalid(
                "invalid_jwks_url",
                "--jwt-jwks (ESPALIER_JWT_JWKS) must be an https:// URL, or the path of a file: over http:// anybody on the way \
                 could replace the keys",
            )),
        }
    }

    /// # Errors
    /// `Invalid` for a file that cannot be read and for content that is not a key set; `Internal` for errors of the network.
    pub(super) fn load(&self) -> Result<KeySet> {
        let json = match self {
            Self::File(path) => std::fs::read(path).map_err(|error| {
                let detail = format!(
                    "the file of --jwt-jwks {} cannot be read: {error}; check the path and its permissions",
                    path.display()
                );
                Error::invalid("jwks_unreadable", detail)
            })?,
            Self::Url(uri) => fetch(uri)?,
        };
        KeySet::parse(&json).map_err(|problem| Error::invalid("invalid_jwks", format!("{self}: {problem}")))
    }
}

/// Redirects are not followed: the operator's URL decides which keys are trusted.
fn fetch(uri: &Uri) -> Result<Vec<u8>> {
    let config = Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(true)
        .timeout_global(Some(FETCH_TIMEOUT))
        .user_agent(concat!("espalier/", env!("CARGO_PKG_VERSION")));
    let config = if is_loopback(uri) { config.proxy(None) } else { config };
    let agent = config.build().new_agent();
    let mut response =
        agent.get(uri).header("accept", "application/jwk-set+json, application/json").call().context("requesting")?;
    response.body_mut().with_config().limit(MAX_JWKS_BYTES).read_to_vec().context("reading the response")
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host == "localhost"
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// The path, or the URL without its query, which may hold a secret.
impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(uri) => {
                write!(f, "{}://{}{}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default(), uri.path())
            }
        }
    }
}
