//! Asking the hub for a file. Knows HTTP, and nothing of the cache.

use super::Settings;
use super::cache::is_plain;
use super::id::Id;
use super::origin::{Origin, follow};
use crate::error::{Context, Error, Result};
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body, BodyReader};

const CONNECT: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is not going to.
const SILENCE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 10;

pub(super) struct Remote {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// A file of the hub, its body not read yet.
pub(super) struct Opened {
    pub commit: String,
    pub etag: String,
    /// As announced, by every header that announces it.
    pub bytes: Vec<u64>,
    pub body: BodyReader<'static>,
}

/// What the hub says to a request for a file.
pub(super) enum Answer {
    Opened(Opened),
    /// The model has no such file.
    Absent,
}

/// The headers that describe the file, gathered on the way through the redirects.
#[derive(Default)]
struct Description {
    commit: Option<String>,
    etag: Option<String>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
}

impl Remote {
    pub fn new(settings: &Settings) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed by hand, so that the token stays with the hub.
            .max_redirects(0)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("espalier/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        Self { agent: config.new_agent(), endpoint: settings.endpoint.clone(), token: settings.token.clone() }
    }

    /// # Errors
    /// `Invalid` where the hub does not have the model or does not give it; `Internal` for the network.
    pub fn open(&self, id: &Id, revision: &str, file: &str) -> Result<Answer> {
        let url = format!("{}/{}/resolve/{}/{file}", self.endpoint, id.repository, revision.replace('/', "%2F"));
        let (response, description) = self.get(&url)?;
        match response.status() {
            StatusCode::OK => Ok(Answer::Opened(opened(response, description, &url)?)),
            StatusCode::NOT_FOUND if is_absence(&response) => Ok(Answer::Absent),
            status => Err(self.refusal(status, id, &url)),
        }
    }

    /// Follows redirects. Only the hub itself sees the token, and only it describes the file.
    fn get(&self, url: &str) -> Result<(Response<Body>, Description)> {
        let Some(hub) = Origin::of(url) else {
            let message = format!("HF_ENDPOINT is {:?}: give an address that begins with https://", self.endpoint);
            return Err(Error::invalid("invalid_hub_endpoint", message));
        };
        let mut description = Description::default();
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let at_hub = Origin::of(&url).is_some_and(|origin| origin == hub);
            let response = self.request(&url, self.token.as_deref().filter(|_| at_hub))?;
            if at_hub {
                description.take(response.headers());
            }
            if !response.status().is_redirection() {
                return Ok((response, description));
            }
            let location = header(response.headers(), "location").unwrap_or_default();
            url = follow(&url, location).ok_or_else(|| {
                Error::internal(format!("{url} redirects to {location:?}, which is not followed: check HF_ENDPOINT"))
            })?;
        }
        Err(Error::internal(format!("{url}: more than {MAX_REDIRECTS} redirects: check HF_ENDPOINT")))
    }

    fn request(&self, url: &str, token: Option<&str>) -> Result<Response<Body>> {
        let mut request = self.agent.get(url);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if Origin::of(url).is_some_and(|origin| origin.is_loopback()) {
            request = request.config().proxy(None).build();
        }
        request.call().with_context(|| {
            format!(
                "asking {url}: check the network, HF_ENDPOINT and the proxy settings; HF_HUB_OFFLINE=1 uses the cache \
                 alone, and the path of a folder needs no hub"
            )
        })
    }

    fn refusal(&self, status: StatusCode, id: &Id, url: &str) -> Error {
        let hub = &self.endpoint;
        match status.as_u16() {
            401 | 403 => {
                let advice = match self.token {
                    None => "set HF_TOKEN to the token of an account that may read it",
                    Some(_) => {
                        "the token in HF_TOKEN may not read it: ask for access on the model's page, or use another"
                    }
                };
                let message = format!(
                    "there is no folder \"{id}\" here, and {hub} does not give the model \"{id}\" (status {status}): \
                     check the spelling; if it is private or gated, {advice}"
                );
                Error::invalid("base_model_forbidden", message)
            }
            404 => not_found(id, hub, "has no such model or revision"),
            _ => Error::internal(format!("{url} answered with status {status}: try again later, or check HF_ENDPOINT")),
        }
    }

    /// The model is there, but not a file that it cannot do without.
    pub fn incomplete(&self, id: &Id, lack: &str) -> Error {
        not_found(id, &self.endpoint, lack)
    }
}

fn not_found(id: &Id, hub: &str, reason: &str) -> Error {
    let message = format!(
        "there is no folder \"{id}\" here, and at {hub} the model \"{id}\" cannot be had: the hub {reason}; check the \
         spelling, or give the path of a model's folder"
    );
    Error::invalid("base_model_not_found", message)
}

/// Whether "not found" speaks of the file, and not of the model or the revision.
fn is_absence(response: &Response<Body>) -> bool {
    header(response.headers(), "x-error-code").is_none_or(|code| code == "EntryNotFound")
}

fn opened(response: Response<Body>, description: Description, url: &str) -> Result<Opened> {
    let strange = |what: &str| Error::internal(format!("{url}: the answer {what}; is HF_ENDPOINT a Hugging Face hub?"));
    let plain = |word: Option<String>| word.filter(|word| is_plain(word));
    let commit = plain(description.commit).ok_or_else(|| strange("names no commit (X-Repo-Commit)"))?;
    let etag = plain(description.linked_etag.or(description.etag)).ok_or_else(|| strange("has no usable ETag"))?;
    let length = response.body().content_length();
    let bytes: Vec<u64> = [description.linked_size, length].into_iter().flatten().collect();
    let chunked = header(response.headers(), "transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
    if bytes.is_empty() && !chunked {
        return Err(strange("does not say how long the file is"));
    }
    let body = response.into_body().into_with_config().reader();
    Ok(Opened { commit, etag, bytes, body })
}

impl Description {
    fn take(&mut self, headers: &HeaderMap) {
        let text = |name| header(headers, name).map(str::to_string);
        let tag = |name| header(headers, name).map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_string());
        self.commit = text("x-repo-commit").or(self.commit.take());
        self.linked_etag = tag("x-linked-etag").or(self.linked_etag.take());
        self.etag = tag("etag").or(self.etag.take());
        self.linked_size = header(headers, "x-linked-size").and_then(|size| size.parse().ok()).or(self.linked_size);
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
