//! Publishing is atomic, loading verifies the hash and everything else.

use super::*;
use crate::adapter;
use crate::artifact::testing;
use crate::model::Pooling;
use std::path::PathBuf;

/// A temporary data folder.
struct TestFolders {
    _folder: tempfile::TempDir,
    root: PathBuf,
    scratch_root: PathBuf,
}

fn test_folders() -> TestFolders {
    let folder = tempfile::tempdir().unwrap();
    TestFolders { root: folder.path().join("adapters"), scratch_root: folder.path().join("temporary"), _folder: folder }
}

fn adapter_files(artifact: &Artifact) -> AdapterFiles {
    AdapterFiles::from_artifact(artifact, &testing::base_summary()).unwrap()
}

fn publish_for_test(artifact: &Artifact, folders: &TestFolders) -> PublishedAdapter {
    publish_files(&adapter_files(artifact), &folders.root, &folders.scratch_root).unwrap()
}

fn load_error(folders: &TestFolders, version: &str) -> (&'static str, String) {
    match load_with_summary(&folders.root, version, &testing::base_summary()).unwrap_err() {
        Error::Conflict(problem) => (problem.code, problem.detail),
        other => panic!("expected a conflict, got {other}"),
    }
}

#[test]
fn published_adapter_round_trips() {
    for artifact in [Pooling::Cls, Pooling::Mean]
        .into_iter()
        .flat_map(|pooling| [testing::lora_artifact(pooling), testing::head_artifact(pooling)])
    {
        let folders = test_folders();
        let published = publish_for_test(&artifact, &folders);
        let loaded = load_with_summary(&folders.root, &published.version, &testing::base_summary()).unwrap();
        assert_eq!(loaded, artifact);
        assert_eq!(adapter_files(&loaded).version(), published.version);
    }
}

#[test]
fn version_is_sha256_of_sha256sum_output() {
    let files = AdapterFiles { config: b"a".to_vec(), weights: b"b".to_vec(), manifest: b"c".to_vec() };
    // printf 'a' > adapter_config.json …; sha256sum adapter_config.json adapter_model.safetensors espalier.json | sha256sum
    assert_eq!(files.version(), "c087a2833ba05ee5229d57089294926a968ab982ad50952fa987cdaabcd4f957");
    assert_eq!(files.total_bytes(), 3);
}

#[test]
fn equal_adapters_share_version_and_folder() {
    let folders = test_folders();
    let one = publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders);
    let other = publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders);
    assert_eq!(one.version, other.version);
    assert_eq!((one.prior_folder, other.prior_folder), (PriorFolder::Absent, PriorFolder::Present));
    assert_eq!(fs::read_dir(&folders.root).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&folders.scratch_root).unwrap().count(), 0);
}

#[test]
fn intact_folder_is_not_rewritten() {
    let folders = test_folders();
    let first = publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders);
    let marker = folders.root.join(&first.version).join("marker");
    fs::write(&marker, "").unwrap();
    publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders);
    assert!(marker.exists());
}

#[test]
fn damaged_folder_is_replaced_on_publish() {
    let folders = test_folders();
    let version = publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders).version;
    fs::write(folders.root.join(&version).join(MANIFEST_FILE), "{}").unwrap();
    assert_eq!(load_error(&folders, &version).0, "adapter_damaged");
    publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders);
    load_with_summary(&folders.root, &version, &testing::base_summary()).unwrap();
}

#[test]
fn any_modified_byte_is_detected() {
    for name in [CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE] {
        let folders = test_folders();
        let version = publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders).version;
        let path = folders.root.join(&version).join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (code, detail) = load_error(&folders, &version);
        assert_eq!(code, "adapter_damaged", "{name}");
        assert!(detail.contains("their hash is"), "{detail}");
    }
}

#[test]
fn missing_folder_or_file_is_reported_as_damaged() {
    let folders = test_folders();
    let version = publish_for_test(&testing::lora_artifact(Pooling::Cls), &folders).version;
    assert_eq!(load_error(&folders, &"0".repeat(64)).0, "adapter_damaged");
    fs::remove_file(folders.root.join(&version).join(WEIGHTS_FILE)).unwrap();
    assert_eq!(load_error(&folders, &version).0, "adapter_damaged");
}

#[test]
fn fingerprint_mismatch_is_rejected() {
    let folders = test_folders();
    let mut artifact = testing::lora_artifact(Pooling::Cls);
    artifact.manifest.base.fingerprint = Some("sha256:other".to_string());
    let version = publish_for_test(&artifact, &folders).version;
    let (code, detail) = load_error(&folders, &version);
    assert_eq!(code, "other_base");
    assert!(detail.contains("sha256:other"), "{detail}");
}

#[test]
fn contradicting_config_and_manifest_are_rejected() {
    let original = adapter_files(&testing::lora_artifact(Pooling::Cls));
    let mut changed_alpha = testing::lora_artifact(Pooling::Cls);
    if let adapter::Config::Lora(config) = &mut changed_alpha.manifest.method {
        config.alpha = Some(64.0);
    }
    let edited = AdapterFiles { config: adapter_files(&changed_alpha).config, ..original.clone() };
    let error = edited.parse(&testing::base_summary()).unwrap_err();
    assert_eq!(error.code(), "unreadable_adapter");
    assert!(error.to_string().contains("lora_alpha differs"), "{error}");

    let head_only = AdapterFiles { config: adapter_files(&testing::head_artifact(Pooling::Cls)).config, ..original };
    assert!(head_only.parse(&testing::base_summary()).unwrap_err().to_string().contains("peft_type differs"));
}

#[test]
fn unexpected_tensor_is_rejected_before_publishing() {
    let mut artifact = testing::lora_artifact(Pooling::Cls);
    artifact.weights.insert("layer.0.key.lora_A".to_string(), testing::random_tensor("stray", [2, 32]));
    let error = adapter_files(&artifact).parse(&testing::base_summary()).unwrap_err();
    assert_eq!(error.code(), "adapter_tensors");
}
