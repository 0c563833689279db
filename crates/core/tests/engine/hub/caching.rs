//! Caches filled by other tools.

use espalier_core::model::hub::{NetworkMode, locate};
use espalier_testing::hub_server::{COMMIT, Model, Server, answer};
use std::fs;
use std::path::Path;

/// Fills the cache as `transformers` does: without the pooling settings of sentence-transformers.
fn fill(cache: &Path, files: &[&str]) {
    let folder = cache.join("models--org--name");
    fs::create_dir_all(folder.join("snapshots").join(COMMIT)).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    files.iter().for_each(|file| fs::write(folder.join("snapshots").join(COMMIT).join(file), file).unwrap());
}

const NEEDED: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

#[test]
fn missing_optional_files_are_downloaded() {
    let cache = tempfile::tempdir().unwrap();
    fill(cache.path(), &NEEDED);
    let hub = Model::small().serve();
    let located = locate("org/name", &hub.settings(cache.path())).unwrap();
    assert!(located.path.join("1_Pooling/config.json").is_file());
    assert!(
        hub.requests().iter().all(|request| !request.path.ends_with("model.safetensors")),
        "the weights are cached"
    );
}

#[test]
fn complete_snapshot_is_used_when_the_hub_fails() {
    let cache = tempfile::tempdir().unwrap();
    fill(cache.path(), &NEEDED);
    let hub = Server::start(|_| answer("503 Service Unavailable", &[], b""));
    assert!(locate("org/name", &hub.settings(cache.path())).is_ok());
    let request_count = hub.requests().len();
    let mut settings = hub.settings(cache.path());
    settings.network = NetworkMode::Offline;
    assert!(locate("org/name", &settings).is_ok());
    assert_eq!(hub.requests().len(), request_count);
}

#[test]
fn snapshot_without_weights_is_incomplete() {
    let cache = tempfile::tempdir().unwrap();
    fill(cache.path(), &NEEDED[..2]);
    let link = cache.path().join("models--org--name/snapshots").join(COMMIT).join("model.safetensors");
    std::os::unix::fs::symlink("../../blobs/gone", &link).unwrap();
    let hub = Model::small().serve();
    let mut settings = hub.settings(cache.path());
    settings.network = NetworkMode::Offline;
    assert_eq!(locate("org/name", &settings).unwrap_err().code(), "base_model_not_cached");
    let located = locate("org/name", &hub.settings(cache.path())).unwrap();
    assert_eq!(fs::read(located.path.join("model.safetensors")).unwrap(), b"weights");
}
