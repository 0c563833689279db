//! Errors of the hub: every message says what to do, and incomplete downloads are not cached.

use espalier_core::error::Error;
use espalier_core::model::hub::{NetworkMode, locate};
use espalier_testing::hub_server::{COMMIT, Model, Server, answer, files, sha256};
use std::path::Path;

/// Whether the model is found in offline mode.
fn is_cached(hub: &Server, cache: &Path) -> bool {
    let mut settings = hub.settings(cache);
    settings.network = NetworkMode::Offline;
    locate("org/name", &settings).is_ok()
}

/// A hub that responds to requests for the weights with `weights`.
fn with_weights(weights: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Server {
    let model = Model::small();
    Server::start(move |request| match request.path.ends_with("model.safetensors") {
        true => weights(),
        false => model.answer(&request.path),
    })
}

fn refusal(hub: &Server, token: Option<&str>) -> Error {
    let cache = tempfile::tempdir().unwrap();
    let mut settings = hub.settings(cache.path());
    settings.token = token.map(str::to_string);
    let error = locate("org/name", &settings).unwrap_err();
    assert_eq!(files(cache.path()), Vec::<String>::new());
    error
}

#[test]
fn gated_model_reports_the_missing_token() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let hub = Server::start(move |_| answer(status, &[("X-Error-Code", "GatedRepo")], b""));
        let error = refusal(&hub, None);
        assert_eq!(error.code(), "base_model_forbidden");
        assert!(error.to_string().contains("set HF_TOKEN"), "{error}");
        let error = refusal(&hub, Some("hf_wrong"));
        assert!(error.to_string().contains("the token in HF_TOKEN may not read it"), "{error}");
        assert!(!error.to_string().contains("hf_wrong"), "{error}");
    }
}

#[test]
fn unknown_model_is_not_found() {
    for code in ["RepoNotFound", "RevisionNotFound", "EntryNotFound"] {
        let hub = Server::start(move |_| answer("404 Not Found", &[("X-Error-Code", code)], b""));
        let error = refusal(&hub, None);
        assert_eq!(error.code(), "base_model_not_found");
        assert!(error.to_string().contains("check the spelling"), "{error}");
    }
}

#[test]
fn model_without_safetensors_or_tokenizer_is_rejected_by_name() {
    for (file, lack) in
        [("model.safetensors", "no model.safetensors"), ("tokenizer.json", "neither a tokenizer.json nor a vocab.txt")]
    {
        let cache = tempfile::tempdir().unwrap();
        let mut model = Model::small();
        model.0.remove(file);
        let hub = model.serve();
        let error = locate("org/name", &hub.settings(cache.path())).unwrap_err();
        assert!(error.to_string().contains(lack), "{error}");
        assert!(!is_cached(&hub, cache.path()));
    }
}

#[test]
fn interrupted_download_is_not_cached() {
    let cache = tempfile::tempdir().unwrap();
    let broken = with_weights(|| {
        answer("200 OK", &[("X-Repo-Commit", COMMIT), ("ETag", "\"abc\""), ("Content-Length", "1000")], b"weig")
    });
    let error = locate("org/name", &broken.settings(cache.path())).unwrap_err();
    assert!(error.to_string().contains("broke off after 4 of 1000 bytes"), "{error}");
    assert!(!is_cached(&broken, cache.path()));
    let left: Vec<String> = files(cache.path()).into_iter().filter(|file| !file.starts_with(".locks")).collect();
    assert!(
        !left.iter().any(|file| file.ends_with("/abc") || file.contains("incomplete") || file.contains("refs")),
        "{left:?}"
    );
    let hub = Model::small().serve();
    assert!(locate("org/name", &hub.settings(cache.path())).is_ok(), "a second attempt succeeds");
}

#[test]
fn download_of_wrong_size_or_content_is_not_cached() {
    let shorter = || {
        let headers = [("X-Repo-Commit", COMMIT), ("X-Linked-Etag", "\"abc\""), ("X-Linked-Size", "8")];
        answer("200 OK", &headers, b"weights")
    };
    let damaged =
        || answer("200 OK", &[("X-Repo-Commit", COMMIT), ("ETag", &format!("\"{}\"", sha256(b"others")))], b"weights");
    let chunked = || {
        let headers =
            [("X-Repo-Commit", COMMIT), ("ETag", "\"abc\""), ("Transfer-Encoding", "chunked"), ("Content-Length", "")];
        let head = String::from_utf8(answer("200 OK", &headers, b"")).unwrap().replace("Content-Length: \r\n", "");
        [head.as_bytes(), b"4\r\nweig\r\n"].concat()
    };
    type Weights = fn() -> Vec<u8>;
    let faults: [(Weights, &str); 3] =
        [(shorter, "7 bytes instead of 8"), (damaged, "came damaged"), (chunked, "broke off after 4 bytes")];
    for (weights, said) in faults {
        let cache = tempfile::tempdir().unwrap();
        let hub = with_weights(weights);
        let error = locate("org/name", &hub.settings(cache.path())).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(!is_cached(&hub, cache.path()));
    }
}

#[test]
fn response_of_another_server_is_rejected() {
    const TAG: &str = "\"../../evil\"";
    let answers: [fn() -> Vec<u8>; 4] = [
        || answer("200 OK", &[], b"<html>"),
        || answer("200 OK", &[("X-Repo-Commit", COMMIT), ("ETag", TAG)], b"{}"),
        || answer("200 OK", &[("X-Repo-Commit", "../../evil"), ("ETag", "\"abc\"")], b"{}"),
        || b"HTTP/1.1 200 OK\r\nX-Repo-Commit: 01\r\nETag: \"abc\"\r\nConnection: close\r\n\r\n{}".to_vec(),
    ];
    for answer in answers {
        let error = refusal(&Server::start(move |_| answer()), None);
        assert!(error.to_string().contains("is HF_ENDPOINT a Hugging Face hub?"), "{error}");
    }
    let error = refusal(&Server::start(|_| answer("502 Bad Gateway", &[], b"")), None);
    assert!(error.to_string().contains("502 Bad Gateway: try again later"), "{error}");
    let error = refusal(&Server::start(|_| answer("302 Found", &[("Location", "/again")], b"")), None);
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[test]
fn network_error_says_what_to_check() {
    let cache = tempfile::tempdir().unwrap();
    let mut settings = Model::small().serve().settings(cache.path());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    settings.endpoint = format!("http://{closed}");
    let error = locate("org/name", &settings).unwrap_err();
    assert!(error.to_string().contains("check the network"), "{error}");
    settings.endpoint = "hub.example".to_string();
    assert_eq!(locate("org/name", &settings).unwrap_err().code(), "invalid_hub_endpoint");
}

#[test]
fn offline_uncached_model_is_rejected_without_request() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Model::small().serve();
    let mut settings = hub.settings(cache.path());
    settings.network = NetworkMode::Offline;
    let error = locate("org/name", &settings).unwrap_err();
    assert_eq!((error.code(), hub.requests().len()), ("base_model_not_cached", 0));
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn name_that_is_neither_folder_nor_id_is_rejected() {
    let hub = Model::small().serve();
    let cache = tempfile::tempdir().unwrap();
    for name in ["", "./nothing", "/nowhere/at/all", "a b", "org/name@../x"] {
        let error = locate(name, &hub.settings(cache.path())).unwrap_err();
        assert_eq!(error.code(), "base_model_not_found", "{name}");
    }
    assert!(hub.requests().is_empty());
}
