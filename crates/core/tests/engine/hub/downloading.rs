//! Downloads from the hub to the cache.

use espalier_core::model::hub::{NetworkMode, locate};
use espalier_testing::hub_server::{COMMIT, Model, Server, answer, files, sha256};
use std::fs;

#[test]
fn download_uses_the_hub_cache_layout() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Model::small().serve();
    let located = locate("org/name", &hub.settings(cache.path())).unwrap();
    let folder = cache.path().join("models--org--name");
    assert_eq!(located.name, "org/name");
    assert_eq!(located.path, folder.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let blob = sha256(b"weights");
    let link = |file: &str| fs::read_link(located.path.join(file)).unwrap().display().to_string();
    assert_eq!(link("model.safetensors"), format!("../../blobs/{blob}"));
    assert!(link("1_Pooling/config.json").starts_with("../../../blobs/"));
    assert_eq!(fs::read(located.path.join("model.safetensors")).unwrap(), b"weights");
    assert_eq!(files(&folder.join("blobs")).len(), 4, "no incomplete file is left");
    assert!(folder.join(".no_exist").join(COMMIT).join("modules.json").is_file());
}

#[test]
fn cached_model_needs_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Model::small().serve();
    let first = locate("org/name", &hub.settings(cache.path())).unwrap();
    let request_count = hub.requests().len();
    assert_eq!(locate("org/name", &hub.settings(cache.path())).unwrap(), first);
    assert_eq!(hub.requests().len(), request_count, "present and absent files are known");
    let mut settings = hub.settings(cache.path());
    settings.network = NetworkMode::Offline;
    settings.endpoint = "http://127.0.0.1:1".to_string();
    assert_eq!(locate("org/name", &settings).unwrap(), first);
}

#[test]
fn revisions_are_cached_separately() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Model::small().serve();
    let located = locate("org/name@refs/pr/7", &hub.settings(cache.path())).unwrap();
    assert_eq!(located.name, "org/name");
    assert_eq!(hub.requests()[0].path, "/org/name/resolve/refs%2Fpr%2F7/config.json");
    assert!(hub.requests()[1..].iter().all(|request| request.path.contains(COMMIT)), "one commit for all files");
    let folder = cache.path().join("models--org--name");
    assert_eq!(fs::read_to_string(folder.join("refs/refs/pr/7")).unwrap(), COMMIT);
    let mut offline = hub.settings(cache.path());
    offline.network = NetworkMode::Offline;
    assert_eq!(locate(&format!("org/name@{COMMIT}"), &offline).unwrap().path, located.path);
    assert_eq!(locate("org/name", &offline).unwrap_err().code(), "base_model_not_cached");
}

#[test]
fn token_is_not_sent_to_other_hosts() {
    let cache = tempfile::tempdir().unwrap();
    let other_host = Server::start(|_| answer("200 OK", &[("ETag", "\"other\"")], b"weights"));
    let (target, model) = (other_host.address.clone(), Model::small());
    let hub = Server::start(move |request| match request.path.as_str() {
        // Large files are on another host, small ones behind a redirect on the same host.
        path if path.ends_with("model.safetensors") => {
            let (location, tag) = (format!("{target}/signed?x=1"), format!("\"{}\"", sha256(b"weights")));
            let headers = [
                ("Location", location.as_str()),
                ("X-Repo-Commit", COMMIT),
                ("X-Linked-Etag", &tag),
                ("X-Linked-Size", "7"),
            ];
            answer("302 Found", &headers, b"")
        }
        path if path.ends_with("tokenizer.json") && !path.starts_with("/moved") => {
            answer("307 Temporary Redirect", &[("Location", &format!("/moved{path}")), ("X-Repo-Commit", COMMIT)], b"")
        }
        path => model.answer(path.strip_prefix("/moved").unwrap_or(path)),
    });
    let mut settings = hub.settings(cache.path());
    settings.token = Some("hf_secret".to_string());
    let located = locate("org/name", &settings).unwrap();
    assert_eq!(fs::read(located.path.join("model.safetensors")).unwrap(), b"weights");
    assert!(hub.requests().iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")));
    assert!(hub.requests().iter().any(|request| request.path.starts_with("/moved/")));
    let seen = other_host.requests();
    assert_eq!((seen.len(), seen[0].path.as_str(), &seen[0].authorization), (1, "/signed?x=1", &None));
}

#[test]
fn sharded_weights_come_with_every_shard() {
    let cache = tempfile::tempdir().unwrap();
    let index = "{\"weight_map\": {\"a\": \"model-1.safetensors\", \"b\": \"model-2.safetensors\", \"c\": \"model-1.safetensors\"}}";
    let mut model = Model::small();
    model.0.remove("model.safetensors");
    model.0.insert("model.safetensors.index.json".into(), index.into());
    model.0.insert("model-1.safetensors".into(), b"one".to_vec());
    let lacking = model.clone().serve();
    let error = locate("org/name", &lacking.settings(cache.path())).unwrap_err();
    assert!(error.to_string().contains("lacks model-2.safetensors"), "{error}");

    model.0.insert("model-2.safetensors".into(), b"two".to_vec());
    let whole = model.serve();
    let located = locate("org/name", &whole.settings(cache.path())).unwrap();
    assert_eq!(fs::read(located.path.join("model-2.safetensors")).unwrap(), b"two");
    let fetched = whole.requests().iter().filter(|request| request.path.ends_with("model-1.safetensors")).count();
    assert_eq!(fetched, 0, "a cached shard is not downloaded again");
}

#[test]
fn chat_template_and_generation_config_are_downloaded() {
    let cache = tempfile::tempdir().unwrap();
    let mut model = Model::small();
    for file in ["chat_template.jinja", "generation_config.json"] {
        model.0.insert(file.to_string(), file.as_bytes().to_vec());
    }
    let hub = model.serve();
    let located = locate("org/name", &hub.settings(cache.path())).unwrap();
    for file in ["chat_template.jinja", "generation_config.json"] {
        assert_eq!(fs::read(located.path.join(file)).unwrap(), file.as_bytes());
    }
}

#[test]
fn concurrent_downloads_both_succeed() {
    let cache = tempfile::tempdir().unwrap();
    let mut model = Model::small();
    model.0.insert("model.safetensors".into(), vec![7; 5_000_000]);
    let hub = model.serve();
    let folders: Vec<_> = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| locate("org/name", &hub.settings(cache.path())).unwrap().path));
        both.map(|thread| thread.join().unwrap()).to_vec()
    });
    assert_eq!(folders[0], folders[1]);
    assert_eq!(fs::read(folders[0].join("model.safetensors")).unwrap(), vec![7; 5_000_000]);
}
