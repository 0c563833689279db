//! HTTP client of the hub. It follows redirects itself, so that the token is sent to the hub only.

use super::Settings;
use super::cache::is_safe_file_name;
use super::repository::ModelId;
use crate::error::{Context, Error, Result};
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body, BodyReader};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time without any data.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 10;

/// HTTP client of the Hugging Face hub.
pub(super) struct HubClient {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    headers: Vec<(&'static str, String)>,
    content: RepositoryContent,
}

/// What a repository holds, for the codes and words of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepositoryContent {
    BaseModel,
    Adapter,
}

/// Response with a file, before the body is read.
pub(super) struct FileResponse {
    pub commit: String,
    pub etag: String,
    /// Sizes in the response headers; the body must match all of them.
    pub expected_sizes: Vec<u64>,
    pub body: BodyReader<'static>,
}

/// Result of a request for a file.
pub(super) enum FileLookup {
    Found(FileResponse),
    /// The repository does not have the file.
    NotFound,
}

/// Headers that describe the file, collected over all redirects.
#[derive(Default)]
struct FileHeaders {
    commit: Option<String>,
    etag: Option<String>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
}

impl HubClient {
    pub fn new(settings: &Settings, content: RepositoryContent) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // `get_following_redirects` follows them.
            .max_redirects(0)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("espalier/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        let (endpoint, token, headers) = (settings.endpoint.clone(), settings.token.clone(), settings.headers.clone());
        Self { agent: config.new_agent(), endpoint, token, headers, content }
    }

    /// Requests a file of a revision.
    ///
    /// # Errors
    /// `Invalid` if the model does not exist or access is denied; `Internal` for errors of the network.
    pub fn request_file(&self, id: &ModelId, revision: &str, file: &str) -> Result<FileLookup> {
        let url = format!("{}/{}/resolve/{}/{file}", self.endpoint, id.repository, revision.replace('/', "%2F"));
        let (response, file_headers) = self.get_following_redirects(&url)?;
        match response.status() {
            StatusCode::OK => Ok(FileLookup::Found(parse_file_response(response, file_headers, &url)?)),
            StatusCode::NOT_FOUND if is_entry_not_found(&response) => Ok(FileLookup::NotFound),
            status => Err(self.status_error(status, id, &url)),
        }
    }

    /// Follows redirects. Only requests to the hub itself carry the token, and only its responses describe the file.
    fn get_following_redirects(&self, url: &str) -> Result<(Response<Body>, FileHeaders)> {
        let Some(hub_origin) = Origin::parse(url) else {
            let message = format!("HF_ENDPOINT is {:?}: give an address that begins with https://", self.endpoint);
            return Err(Error::invalid("invalid_hub_endpoint", message));
        };
        let mut file_headers = FileHeaders::default();
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let is_hub_request = Origin::parse(&url).is_some_and(|origin| origin == hub_origin);
            let response = match is_hub_request {
                true => self.send(&url, self.token.as_deref(), &self.headers)?,
                false => self.send(&url, None, &[])?,
            };
            if is_hub_request {
                file_headers.merge(response.headers());
            }
            if !response.status().is_redirection() {
                return Ok((response, file_headers));
            }
            let location = header_value(response.headers(), "location").unwrap_or_default();
            url = resolve_redirect(&url, location).ok_or_else(|| {
                Error::internal(format!("{url} redirects to {location:?}, which is not followed: check HF_ENDPOINT"))
            })?;
        }
        Err(Error::internal(format!("{url}: more than {MAX_REDIRECTS} redirects: check HF_ENDPOINT")))
    }

    fn send(&self, url: &str, token: Option<&str>, headers: &[(&str, String)]) -> Result<Response<Body>> {
        let mut request =
            headers.iter().fold(self.agent.get(url), |request, (name, value)| request.header(*name, value));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if Origin::parse(url).is_some_and(|origin| origin.is_loopback()) {
            request = request.config().proxy(None).build();
        }
        request.call().with_context(|| {
            format!(
                "asking {url}: check the network, HF_ENDPOINT and the proxy settings; HF_HUB_OFFLINE=1 uses the cache \
                 alone, and the path of a folder needs no hub"
            )
        })
    }

    fn status_error(&self, status: StatusCode, id: &ModelId, url: &str) -> Error {
        let endpoint = &self.endpoint;
        match (status.as_u16(), self.content) {
            (401 | 403, RepositoryContent::BaseModel) => {
                let hint = self.access_hint();
                let message = format!(
                    "there is no folder \"{id}\" here, and {endpoint} does not give the model \"{id}\" (status {status}): \
                     check the spelling; if it is private or gated, {hint}"
                );
                Error::invalid("base_model_forbidden", message)
            }
            (401 | 403, RepositoryContent::Adapter) => {
                let hint = self.access_hint();
                let message = format!(
                    "{endpoint} does not give the repository \"{id}\" (status {status}): check the spelling; if it is \
                     private or gated, the operator of this server has to {hint}"
                );
                Error::invalid("adapter_forbidden", message)
            }
            (404, _) => self.missing_content(id, "has no such model or revision"),
            _ => Error::internal(format!("{url} answered with status {status}: try again later, or check HF_ENDPOINT")),
        }
    }

    fn access_hint(&self) -> &'static str {
        match (&self.token, self.content) {
            (None, _) => "set HF_TOKEN to the token of an account that may read it",
            (Some(_), RepositoryContent::BaseModel) => {
                "the token in HF_TOKEN may not read it: ask for access on the model's page, or use another"
            }
            (Some(_), RepositoryContent::Adapter) => "ask for access on the repository's page, or set another HF_TOKEN",
        }
    }

    /// Error for a repository that does not exist or lacks a required file.
    pub fn missing_content(&self, id: &ModelId, reason: &str) -> Error {
        let endpoint = &self.endpoint;
        match self.content {
            RepositoryContent::BaseModel => {
                let message = format!(
                    "there is no folder \"{id}\" here, and at {endpoint} the model \"{id}\" cannot be had: the hub \
                     {reason}; check the spelling, or give the path of a model's folder"
                );
                Error::invalid("base_model_not_found", message)
            }
            RepositoryContent::Adapter => {
                let message = format!("the adapter \"{id}\" cannot be had at {endpoint}: the hub {reason}");
                Error::invalid("adapter_not_found", message)
            }
        }
    }
}

/// Whether a 404 response refers to the file rather than to the repository or the revision.
fn is_entry_not_found(response: &Response<Body>) -> bool {
    header_value(response.headers(), "x-error-code").is_none_or(|code| code == "EntryNotFound")
}

fn parse_file_response(response: Response<Body>, file_headers: FileHeaders, url: &str) -> Result<FileResponse> {
    let unexpected_response =
        |reason: &str| Error::internal(format!("{url}: the answer {reason}; is HF_ENDPOINT a Hugging Face hub?"));
    let safe_name = |name: Option<String>| name.filter(|name| is_safe_file_name(name));
    let commit =
        safe_name(file_headers.commit).ok_or_else(|| unexpected_response("names no commit (X-Repo-Commit)"))?;
    let etag = safe_name(file_headers.linked_etag.or(file_headers.etag))
        .ok_or_else(|| unexpected_response("has no usable ETag"))?;
    let content_length = response.body().content_length();
    let expected_sizes: Vec<u64> = [file_headers.linked_size, content_length].into_iter().flatten().collect();
    let is_chunked =
        header_value(response.headers(), "transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
    if expected_sizes.is_empty() && !is_chunked {
        return Err(unexpected_response("does not say how long the file is"));
    }
    let body = response.into_body().into_with_config().reader();
    Ok(FileResponse { commit, etag, expected_sizes, body })
}

impl FileHeaders {
    fn merge(&mut self, headers: &HeaderMap) {
        let header_text = |name| header_value(headers, name).map(str::to_string);
        let etag_value =
            |name| header_value(headers, name).map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_string());
        self.commit = header_text("x-repo-commit").or(self.commit.take());
        self.linked_etag = etag_value("x-linked-etag").or(self.linked_etag.take());
        self.etag = etag_value("etag").or(self.etag.take());
        self.linked_size =
            header_value(headers, "x-linked-size").and_then(|size| size.parse().ok()).or(self.linked_size);
    }
}

fn header_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme, host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` if the URL is not HTTP or HTTPS.
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

    /// Whether the server is on this machine, so that no proxy applies.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host == "[::1]" || self.host.starts_with("127.")
    }
}

/// Target URL of a redirect; `None` if it leaves HTTP or downgrades from HTTPS to HTTP.
fn resolve_redirect(from: &str, location: &str) -> Option<String> {
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
