//! Models in local folders, and their names.

use espalier_core::model::hub::{NetworkMode, Settings, locate};
use std::fs;
use std::path::{Path, PathBuf};

fn offline() -> Settings {
    let endpoint = "http://127.0.0.1:1".to_string();
    Settings {
        endpoint,
        token: None,
        network: NetworkMode::Offline,
        headers: Vec::new(),
        cache: PathBuf::from("/nowhere"),
    }
}

fn name(folder: &Path) -> String {
    locate(folder.to_str().unwrap(), &offline()).unwrap().name
}

#[test]
fn folder_name_is_the_model_name() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("all-MiniLM-L6-v2");
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    fs::write(folder.join("config.json"), "{\"_name_or_path\": \"/somebody/else\"}").unwrap();
    let located = locate(folder.to_str().unwrap(), &offline()).unwrap();
    assert_eq!((located.path, located.name.as_str()), (folder.clone(), "all-MiniLM-L6-v2"));
    assert_eq!(name(&folder.join("1_Pooling/..")), "all-MiniLM-L6-v2");
}

#[test]
fn hub_cache_folder_uses_its_hub_id() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("models--org--my-model");
    let snapshot = model.join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    assert_eq!(name(&snapshot), "org/my-model");
    let located = locate(model.to_str().unwrap(), &offline()).unwrap();
    assert_eq!((located.path, located.name.as_str()), (snapshot.clone(), "org/my-model"));
    let link = root.path().join("base");
    std::os::unix::fs::symlink(&snapshot, &link).unwrap();
    assert_eq!(name(&link), "org/my-model");

    let other = model.join("snapshots/def");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("config.json"), "{}").unwrap();
    let error = locate(model.to_str().unwrap(), &offline()).unwrap_err();
    assert!(error.to_string().contains("give one of the folders in its snapshots/"), "{error}");
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), "def\n").unwrap();
    assert_eq!(locate(model.to_str().unwrap(), &offline()).unwrap().path, other);
}

#[test]
fn folder_without_config_is_rejected() {
    let root = tempfile::tempdir().unwrap();
    let error = locate(root.path().to_str().unwrap(), &offline()).unwrap_err();
    assert_eq!(error.code(), "base_model_not_found");
    assert!(error.to_string().contains("holds no config.json"), "{error}");
}
