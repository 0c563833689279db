//! Rewrites the paths of requests before they are routed: repeated and trailing slashes are removed, and the paths that clients of Azure
//! OpenAI use become those under `/v1`.

use axum::http::uri::PathAndQuery;
use axum::http::{Request, Uri};
use std::borrow::Cow;

/// Prefix of all paths of Azure OpenAI.
const AZURE_PREFIX: &str = "/openai/";
/// Query parameter that clients of Azure OpenAI send with every request.
const AZURE_VERSION_PARAMETER: &str = "api-version";
/// The page at this path needs its trailing slash: its links are relative.
const DOCS_PATH: &str = "/docs/";

/// Deployment in the path of a request to Azure OpenAI, which names the model; an extension of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment(pub String);

/// Rewrites the path where it is not in its normal form.
pub fn normalize<B>(request: &mut Request<B>) {
    let path = request.uri().path();
    let is_normal = !path.contains("//")
        && (path.len() <= 1 || !path.ends_with('/') || path == DOCS_PATH)
        && !path.starts_with(AZURE_PREFIX);
    if is_normal {
        return;
    }
    let path = collapse_slashes(path);
    let (path, query, deployment) = match path.strip_prefix(AZURE_PREFIX) {
        Some(rest) => {
            let (path, deployment) = azure_path(rest);
            (Cow::Owned(path), request.uri().query().and_then(without_version), deployment)
        }
        None => (Cow::Borrowed(path.as_str()), request.uri().query().map(Cow::Borrowed), None),
    };
    let target = query.map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
    let mut parts = request.uri().clone().into_parts();
    // A path without some of its slashes is still a path.
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        if let Some(deployment) = deployment {
            request.extensions_mut().insert(deployment);
        }
    }
}

/// Path without repeated and trailing slashes.
fn collapse_slashes(path: &str) -> String {
    let mut collapsed = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        collapsed.push('/');
        collapsed.push_str(segment);
    }
    match collapsed.as_str() {
        "" => "/".to_string(),
        "/docs" if path.ends_with('/') => DOCS_PATH.to_string(),
        _ => collapsed,
    }
}

/// Path under `/v1` of a path behind [`AZURE_PREFIX`], and its deployment.
fn azure_path(rest: &str) -> (String, Option<Deployment>) {
    let rest = rest.strip_prefix("v1/").unwrap_or(rest);
    match rest.strip_prefix("deployments/").and_then(|rest| rest.split_once('/')) {
        Some((deployment, call)) => (format!("/v1/{call}"), Some(Deployment(percent_decode(deployment)))),
        None => (format!("/v1/{rest}"), None),
    }
}

/// Query without the version of Azure's API; `None` if nothing else is in it.
fn without_version(query: &str) -> Option<Cow<'_, str>> {
    let is_kept = |parameter: &&str| parameter.split('=').next() != Some(AZURE_VERSION_PARAMETER);
    let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| hex::decode(digits).ok());
        match escaped.as_deref() {
            Some([byte]) => {
                decoded.push(*byte);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Target and deployment after [`normalize`].
    fn normalized(target: &str) -> (String, Option<String>) {
        let mut request = Request::builder().uri(target).body(()).unwrap();
        normalize(&mut request);
        let deployment = request.extensions().get::<Deployment>().map(|deployment| deployment.0.clone());
        (request.uri().to_string(), deployment)
    }

    #[test]
    fn repeated_and_trailing_slashes_are_removed() {
        for (target, path) in [
            ("/", "/"),
            ("//", "/"),
            ("/jobs", "/jobs"),
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("/v1//models/", "/v1/models"),
            ("/jobs/?limit=1//2", "/jobs?limit=1//2"),
            ("/docs", "/docs"),
            ("/docs/", "/docs/"),
            ("//docs//", "/docs/"),
            ("/adapters/a%2F%2Fb", "/adapters/a%2F%2Fb"),
            ("http://localhost:1//jobs", "http://localhost:1/jobs"),
        ] {
            assert_eq!(normalized(target), (path.to_string(), None), "{target}");
        }
    }

    #[test]
    fn azure_paths_are_those_under_v1() {
        for (target, path, deployment) in [
            ("/openai/v1/models?api-version=preview", "/v1/models", None),
            (
                "/openai/deployments/my%20model/chat/completions?api-version=2024-10-21",
                "/v1/chat/completions",
                Some("my model"),
            ),
            ("/openai/deployments/a@1/embeddings", "/v1/embeddings", Some("a@1")),
            ("/openai/files?limit=2&api-version=1&after=x", "/v1/files?limit=2&after=x", None),
            ("/openai/deployments/a", "/v1/deployments/a", None),
        ] {
            assert_eq!(normalized(target), (path.to_string(), deployment.map(str::to_string)), "{target}");
        }
        assert_eq!(percent_decode("a%zz%4%41%"), "a%zz%4A%");
    }
}
