//! Settings of the listen address and the API keys. Secret values may be read from files, as Docker and Kubernetes mount them.

use super::units;
use crate::http::{AllowedHosts, CorsOrigins, ForwardedFor, JwtSettings};
use clap::Args;
use espalier_core::error::{Error, Result};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Minimum length of an API key, which makes guessing infeasible.
const MIN_API_KEY_LENGTH: usize = 16;

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Access")]
pub struct Flags {
    /// Address to listen on; an address other than loopback requires an API key
    #[arg(long, env = "ESPALIER_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Accepted API keys, separated by commas, at least 16 characters each; they have all scopes but admin, and share one owner
    #[arg(long, env = "ESPALIER_API_KEYS", value_name = "KEYS", hide_env_values = true)]
    pub api_keys: Option<String>,

    /// File of accepted API keys, one per line; empty lines and text after a # are ignored
    #[arg(long, env = "ESPALIER_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// API keys of administrators, separated by commas, at least 16 characters each: they create the keys of others (POST /keys)
    #[arg(long, env = "ESPALIER_ADMIN_KEYS", value_name = "KEYS", hide_env_values = true)]
    pub admin_keys: Option<String>,

    /// File of API keys of administrators, one per line; empty lines and text after a # are ignored
    #[arg(long, env = "ESPALIER_ADMIN_KEYS_FILE", value_name = "FILE")]
    pub admin_keys_file: Option<PathBuf>,

    /// Interval at which keys and owners that other processes have changed are read, and usage is written to the database
    #[arg(long, env = "ESPALIER_ACCESS_REFRESH_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = units::parse_duration)]
    pub access_refresh_interval: Duration,

    /// Take the address of a client, for the audit log, from the last entry of x-forwarded-for: only behind a proxy that sets it
    #[arg(long, env = "ESPALIER_TRUST_FORWARDED_FOR", value_parser = clap::builder::FalseyValueParser::new())]
    pub trust_forwarded_for: bool,

    /// Host names under which clients address the server, separated by commas; * allows every name. localhost and IP addresses are
    /// always allowed. A server with API keys checks the names only if this is set [default: none]
    #[arg(long, env = "ESPALIER_ALLOWED_HOSTS", value_name = "HOSTS")]
    pub allowed_hosts: Option<String>,

    /// Origins of web pages that may call the server (CORS), separated by commas, such as `https://app.example.com`; * allows every
    /// page [default: none]
    #[arg(long, env = "ESPALIER_CORS_ORIGINS", value_name = "ORIGINS")]
    pub cors_origins: Option<String>,

    /// Time until a browser that signed in to the dashboard with an API key has to sign in again
    #[arg(long, env = "ESPALIER_SESSION_LIFETIME", value_name = "TIME", default_value = "12h", value_parser = units::parse_duration)]
    pub session_lifetime: Duration,

    /// Refuse requests under /v1 with unknown fields; by default such fields are ignored and named in the header x-ignored-fields
    #[arg(long, env = "ESPALIER_STRICT_REQUESTS", value_parser = clap::builder::FalseyValueParser::new())]
    pub strict_requests: bool,

    /// Accept requests without an API key on any address
    #[arg(long, env = "ESPALIER_INSECURE_NO_AUTH", value_parser = clap::builder::FalseyValueParser::new())]
    pub insecure_no_auth: bool,
}

/// Resolved listen address, host names and API keys.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    pub listen: SocketAddr,
    pub allowed_hosts: AllowedHosts,
    pub cors_origins: CorsOrigins,
    pub session_lifetime: Duration,
    pub strict_requests: bool,
    pub api_keys: Vec<Secret>,
    pub admin_keys: Vec<Secret>,
    pub forwarded_for: ForwardedFor,
    pub access_refresh_interval: Duration,
}

impl Flags {
    /// # Errors
    /// `Invalid` for a key that is too short, a key file without keys, a reachable address without keys and tokens, and a wrong host name or origin.
    pub fn resolve(&self, tokens: Option<&JwtSettings>) -> Result<AccessSettings> {
        let api_keys = read_keys(self.api_keys.as_deref(), self.api_keys_file.as_deref(), "--api-keys-file")?;
        let admin_keys = read_keys(self.admin_keys.as_deref(), self.admin_keys_file.as_deref(), "--admin-keys-file")?;
        let is_keyless = api_keys.is_empty() && admin_keys.is_empty() && tokens.is_none();
        if is_keyless && !self.listen.ip().is_loopback() && !self.insecure_no_auth {
            return Err(Error::invalid(
                "no_api_key",
                format!(
                    "{} can be reached from other machines and no API key is set: set --api-keys (ESPALIER_API_KEYS) or \
                     --api-keys-file, accept tokens with --jwt-jwks, listen on 127.0.0.1, or accept every client with --insecure-no-auth",
                    self.listen
                ),
            ));
        }
        let allowed_hosts = self.resolve_allowed_hosts(is_keyless)?;
        let origins = self.cors_origins.iter().flat_map(|origins| origins.split(',')).map(str::trim);
        Ok(AccessSettings {
            listen: self.listen,
            allowed_hosts,
            cors_origins: CorsOrigins::parse(origins.filter(|origin| !origin.is_empty()))?,
            session_lifetime: self.session_lifetime,
            strict_requests: self.strict_requests,
            api_keys,
            admin_keys,
            forwarded_for: if self.trust_forwarded_for { ForwardedFor::Trust } else { ForwardedFor::Ignore },
            access_refresh_interval: self.access_refresh_interval,
        })
    }

    /// A web page cannot know an API key, so a server with keys needs no check, and works behind any proxy.
    fn resolve_allowed_hosts(&self, is_keyless: bool) -> Result<AllowedHosts> {
        match &self.allowed_hosts {
            Some(hosts) => AllowedHosts::parse(hosts.split(',').map(str::trim).filter(|host| !host.is_empty())),
            None if is_keyless => AllowedHosts::parse([]),
            None => Ok(AllowedHosts::Any),
        }
    }
}

/// Keys of a setting and of a file.
fn read_keys(inline: Option<&str>, file: Option<&Path>, flag: &str) -> Result<Vec<Secret>> {
    let mut keys: Vec<&str> = inline.into_iter().flat_map(|keys| keys.split(',')).map(str::trim).collect();
    let text = file.map(|file| read_secret_file(file, flag)).transpose()?.unwrap_or_default();
    let inline_count = keys.len();
    keys.extend(text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()));
    if file.is_some() && keys[inline_count..].iter().all(|key| key.is_empty()) {
        let detail = format!("the file of API keys ({flag}) holds no key: write one per line");
        return Err(Error::invalid("no_api_key", detail));
    }
    keys.retain(|key| !key.is_empty());
    check_api_keys(&keys)?;
    Ok(keys.into_iter().map(Secret::new).collect())
}

fn check_api_keys(keys: &[&str]) -> Result<()> {
    let is_valid = |key: &&str| key.len() >= MIN_API_KEY_LENGTH && key.bytes().all(|byte| byte.is_ascii_graphic());
    match keys.iter().position(|key| !is_valid(key)) {
        None => Ok(()),
        Some(index) => Err(Error::invalid(
            "weak_api_key",
            format!(
                "API key number {} is not usable: a key is at least {MIN_API_KEY_LENGTH} visible ASCII characters without \
                 spaces (`openssl rand -hex 24` makes one)",
                index + 1
            ),
        )),
    }
}

/// Value that `Debug` does not print, so that it does not appear in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

/// Reads a secret file; `flag` is the setting that names it.
///
/// # Errors
/// `Invalid` (`unreadable_secret`) if the file cannot be read.
pub fn read_secret_file(path: &Path, flag: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::invalid(
            "unreadable_secret",
            format!(
                "{flag} names {}, which cannot be read: {error}; check the path and its permissions",
                path.display()
            ),
        )
    })
}
