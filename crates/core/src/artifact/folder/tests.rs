//! A folder is its hash: written whole, read strictly.

use super::*;
use crate::artifact::testing;
use crate::model::Pooling;
use std::path::PathBuf;

/// A data folder of its own, gone at the end of the test.
struct Place {
    _folder: tempfile::TempDir,
    root: PathBuf,
    temporary: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    Place { root: folder.path().join("adapters"), temporary: folder.path().join("temporary"), _folder: folder }
}

fn files(artifact: &Artifact) -> Files {
    Files::of(artifact, &testing::outline()).unwrap()
}

fn published(artifact: &Artifact, place: &Place) -> Published {
    publish(&files(artifact), &place.root, &place.temporary).unwrap()
}

fn refusal(place: &Place, version: &str) -> (&'static str, String) {
    match open(&place.root, version, &testing::outline()).unwrap_err() {
        Error::Conflict(problem) => (problem.code, problem.detail),
        other => panic!("expected a conflict, got {other}"),
    }
}

#[test]
fn what_is_written_is_read_back_as_it_was() {
    for artifact in
        [Pooling::Cls, Pooling::Mean].into_iter().flat_map(|pooling| [testing::lora(pooling), testing::head(pooling)])
    {
        let place = place();
        let published = published(&artifact, &place);
        let back = open(&place.root, &published.version, &testing::outline()).unwrap();
        assert_eq!(back, artifact);
        assert_eq!(files(&back).version(), published.version);
    }
}

#[test]
fn the_version_is_what_sha256sum_prints_hashed_again() {
    let files = Files { config: b"a".to_vec(), tensors: b"b".to_vec(), card: b"c".to_vec() };
    // printf 'a' > adapter_config.json …; sha256sum adapter_config.json adapter_model.safetensors espalier.json | sha256sum
    assert_eq!(files.version(), "c087a2833ba05ee5229d57089294926a968ab982ad50952fa987cdaabcd4f957");
    assert_eq!(files.bytes(), 3);
}

#[test]
fn equal_adapters_have_one_version_and_one_folder() {
    let place = place();
    let one = published(&testing::lora(Pooling::Cls), &place);
    let other = published(&testing::lora(Pooling::Cls), &place);
    assert_eq!(one.version, other.version);
    assert_eq!((one.before, other.before), (Before::Nothing, Before::Folder));
    assert_eq!(fs::read_dir(&place.root).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&place.temporary).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_there_is_left_as_it_is() {
    let place = place();
    let published_once = published(&testing::lora(Pooling::Cls), &place);
    let marker = place.root.join(&published_once.version).join("marker");
    fs::write(&marker, "").unwrap();
    published(&testing::lora(Pooling::Cls), &place);
    assert!(marker.exists());
}

#[test]
fn a_damaged_folder_is_replaced_by_the_next_writer() {
    let place = place();
    let version = published(&testing::lora(Pooling::Cls), &place).version;
    fs::write(place.root.join(&version).join(CARD_FILE), "{}").unwrap();
    assert_eq!(refusal(&place, &version).0, "adapter_damaged");
    published(&testing::lora(Pooling::Cls), &place);
    open(&place.root, &version, &testing::outline()).unwrap();
}

#[test]
fn any_change_of_any_file_is_noticed() {
    for name in [CONFIG_FILE, TENSOR_FILE, CARD_FILE] {
        let place = place();
        let version = published(&testing::lora(Pooling::Cls), &place).version;
        let path = place.root.join(&version).join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (code, detail) = refusal(&place, &version);
        assert_eq!(code, "adapter_damaged", "{name}");
        assert!(detail.contains("their hash is"), "{detail}");
    }
}

#[test]
fn a_missing_folder_or_file_is_damage() {
    let place = place();
    let version = published(&testing::lora(Pooling::Cls), &place).version;
    assert_eq!(refusal(&place, &"0".repeat(64)).0, "adapter_damaged");
    fs::remove_file(place.root.join(&version).join(TENSOR_FILE)).unwrap();
    assert_eq!(refusal(&place, &version).0, "adapter_damaged");
}

#[test]
fn an_adapter_of_another_base_is_refused_by_its_fingerprint() {
    let place = place();
    let mut artifact = testing::lora(Pooling::Cls);
    artifact.card.base.fingerprint = Some("sha256:other".to_string());
    let version = published(&artifact, &place).version;
    let (code, detail) = refusal(&place, &version);
    assert_eq!(code, "other_base");
    assert!(detail.contains("sha256:other"), "{detail}");
}

#[test]
fn a_folder_that_contradicts_itself_is_refused() {
    let honest = files(&testing::lora(Pooling::Cls));
    let mut loud = testing::lora(Pooling::Cls);
    if let adapter::Config::Lora(config) = &mut loud.card.method {
        config.alpha = Some(64.0);
    }
    let edited = Files { config: files(&loud).config, ..honest.clone() };
    let error = edited.open(&testing::outline()).unwrap_err();
    assert_eq!(error.code(), "unreadable_adapter");
    assert!(error.to_string().contains("lora_alpha differs"), "{error}");

    let bare = Files { config: files(&testing::head(Pooling::Cls)).config, ..honest };
    assert!(bare.open(&testing::outline()).unwrap_err().to_string().contains("peft_type differs"));
}

#[test]
fn a_tensor_that_the_adapter_should_not_have_is_refused_before_it_is_published() {
    let mut artifact = testing::lora(Pooling::Cls);
    artifact.weights.insert("layer.0.key.lora_A".to_string(), testing::tensor("stray", [2, 32]));
    let error = files(&artifact).open(&testing::outline()).unwrap_err();
    assert_eq!(error.code(), "adapter_tensors");
}
