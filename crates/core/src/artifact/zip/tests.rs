//! What goes out comes in; what is malicious or broken is refused and leaves nothing.

use super::*;
use crate::artifact::folder::{Files, publish};
use crate::artifact::{CARD_FILE, CONFIG_FILE, Settings, TENSOR_FILE, testing};
use crate::error::Result;
use crate::model::Pooling;
use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, ZipWriter};
use proptest::prelude::*;
use serde_json::json;
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::PathBuf;

const LIMITS: Settings = Settings { max_entries: 10, max_json_bytes: 5_000, max_tensor_bytes: 20_000 };

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Unpacks into a fresh folder and answers what lies in it.
fn unpacked(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload.zip");
    fs::write(&file, bytes).unwrap();
    let into = folder.path().join("into");
    fs::create_dir(&into).unwrap();
    unpack(File::open(file).unwrap(), &into, &LIMITS)?;
    let paths: Vec<PathBuf> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().path()).collect();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut files: Vec<_> = paths.iter().map(|path| (name(path), fs::read(path).unwrap())).collect();
    files.sort();
    Ok(files)
}

fn refusal(bytes: &[u8]) -> (&'static str, String) {
    let error = unpacked(bytes).unwrap_err();
    (error.code(), error.to_string())
}

fn exported() -> (Files, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::of(&testing::lora(Pooling::Cls), &testing::outline()).unwrap();
    let version = publish(&files, folder.path(), &folder.path().join("temporary")).unwrap().version;
    let mut out = Cursor::new(Vec::new());
    export(&folder.path().join(&version), &version, &json!({"job_id": 7}), &mut out).unwrap();
    (files, version, out.into_inner())
}

#[test]
fn an_export_comes_back_byte_for_byte() {
    let (files, version, bytes) = exported();
    let back = unpacked(&bytes).unwrap();
    let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [CONFIG_FILE, TENSOR_FILE, CARD_FILE]);
    let mut back = back.into_iter().map(|(_, bytes)| bytes);
    let mut next = || back.next().unwrap();
    let back = Files { config: next(), tensors: next(), card: next() };
    assert_eq!(back, files);
    assert_eq!(back.version(), version);
}

#[test]
fn equal_adapters_export_to_equal_bytes() {
    assert_eq!(exported().2, exported().2);
}

#[test]
fn a_damaged_folder_is_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::of(&testing::lora(Pooling::Cls), &testing::outline()).unwrap();
    let version = publish(&files, folder.path(), &folder.path().join("temporary")).unwrap().version;
    fs::write(folder.path().join(&version).join(CARD_FILE), "{}").unwrap();
    let error = export(&folder.path().join(&version), &version, &json!({}), Cursor::new(Vec::new())).unwrap_err();
    assert_eq!(error.code(), "adapter_damaged");
}

#[test]
fn a_folder_inside_the_zip_and_other_files_are_fine() {
    let bytes = zip(&[
        ("my-adapter/README.md", b"read me"),
        ("my-adapter/adapter_config.json", b"{}"),
        ("my-adapter/adapter_model.safetensors", b"tensors"),
        ("my-adapter/training_args.bin", b"pickle"),
        ("__MACOSX/my-adapter/adapter_config.json", b"junk"),
    ]);
    let names: Vec<String> = unpacked(&bytes).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [CONFIG_FILE, TENSOR_FILE]);
}

#[test]
fn entries_that_leave_the_folder_are_refused() {
    for name in ["../adapter_config.json", "/etc/passwd", "a/../../b", "C:/x", "a\\..\\b"] {
        let (code, detail) = refusal(&zip(&[(CONFIG_FILE, b"{}"), (TENSOR_FILE, b""), (name, b"x")]));
        assert_eq!(code, "unreadable_adapter");
        assert!(detail.contains("points outside of the zip"), "{name}: {detail}");
    }
}

#[test]
fn links_are_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink(CONFIG_FILE, "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let (code, detail) = refusal(&writer.finish().unwrap().into_inner());
    assert_eq!(code, "unreadable_adapter");
    assert!(detail.contains("is a link"), "{detail}");
}

#[test]
fn a_bomb_is_refused_before_it_unfolds() {
    let big = vec![0; 1_000_000];
    let (code, detail) = refusal(&zip(&[(CONFIG_FILE, b"{}"), (TENSOR_FILE, &big)]));
    assert_eq!(code, "unreadable_adapter");
    assert!(detail.contains("unpacks to more than 20000 bytes"), "{detail}");
    assert!(refusal(&zip(&[(CONFIG_FILE, &big), (TENSOR_FILE, b"")])).1.contains("unpacks to more than 5000 bytes"));
}

#[test]
fn too_many_entries_are_refused() {
    let names: Vec<String> = (0..11).map(|index| format!("f{index}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    assert!(refusal(&zip(&entries)).1.contains("it holds 11 entries, at most 10"));
}

#[test]
fn a_pickle_is_refused_with_advice() {
    let (code, detail) = refusal(&zip(&[(CONFIG_FILE, b"{}"), ("adapter_model.bin", b"\x80\x02")]));
    assert_eq!(code, "unsupported_adapter");
    assert!(detail.contains("safe_serialization=True"), "{detail}");
}

#[test]
fn what_holds_no_adapter_or_several_is_refused() {
    assert!(refusal(&zip(&[("README.md", b"")])).1.contains("it holds no adapter_config.json"));
    assert!(refusal(&zip(&[(CONFIG_FILE, b"{}")])).1.contains("it holds no adapter_model.safetensors"));
    assert!(refusal(&zip(&[("a/adapter_config.json", b"{}"), ("b/adapter_config.json", b"{}")])).1.contains("several"));
    assert!(refusal(b"PK but not a zip").1.contains("it is not a zip"));
    assert!(refusal(b"").1.contains("it is not a zip"));
}

proptest! {
    #[test]
    fn a_flipped_or_cut_zip_never_panics(place in any::<prop::sample::Index>(), value in any::<u8>(), keep in any::<prop::sample::Index>()) {
        let mut bytes = zip(&[("a/adapter_config.json", b"{}"), ("a/adapter_model.safetensors", b"tensors")]);
        let index = place.index(bytes.len());
        bytes[index] = value;
        let _ = unpacked(&bytes);
        let _ = unpacked(&bytes[..keep.index(bytes.len())]);
    }
}
