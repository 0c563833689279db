//! Exported zips round-trip; malicious and damaged archives and folders are rejected.

use super::*;
use crate::artifact::folder::{AdapterFiles, publish_files};
use crate::artifact::testing;
use crate::artifact::zip::write_peft_zip;
use crate::model::Pooling;
use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, ZipWriter};
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::json;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use tar::{Builder, EntryType, Header};

const TEST_LIMITS: ImportLimits = ImportLimits { max_entries: 10, max_json_bytes: 5_000, max_tensor_bytes: 20_000 };

fn build_zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Unpacks into a temporary folder and returns its files.
fn unpack_bytes(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload");
    fs::write(&file, bytes).unwrap();
    let into = folder.path().join("into");
    fs::create_dir(&into).unwrap();
    unpack(File::open(file).unwrap(), &into, &TEST_LIMITS)?;
    Ok(read_folder(&into))
}

/// Names and contents of a folder's files, sorted.
fn read_folder(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut files: Vec<_> = paths.iter().map(|path| (name(path), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

fn tar_header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size as u64);
    header
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

fn build_tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar_header(EntryType::Regular, bytes.len());
        // `Header::set_path` refuses names that leave the archive.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    gzip(&builder.into_inner().unwrap())
}

fn unpack_error(bytes: &[u8]) -> (&'static str, String) {
    let error = unpack_bytes(bytes).unwrap_err();
    (error.code(), error.to_string())
}

fn exported_zip() -> (AdapterFiles, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let files = AdapterFiles::from_artifact(&testing::lora_artifact(Pooling::Cls), &testing::base_summary()).unwrap();
    let version = publish_files(&files, folder.path(), &folder.path().join("temporary")).unwrap().version;
    let mut out = Cursor::new(Vec::new());
    write_peft_zip(&folder.path().join(&version), &version, &json!({"job_id": 7}), &mut out).unwrap();
    (files, version, out.into_inner())
}

#[test]
fn exported_zip_round_trips() {
    let (files, version, bytes) = exported_zip();
    let extracted = unpack_bytes(&bytes).unwrap();
    let names: Vec<&str> = extracted.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE]);
    let mut contents = extracted.into_iter().map(|(_, bytes)| bytes);
    let mut next = || contents.next().unwrap();
    let files_from_zip = AdapterFiles { config: next(), weights: next(), manifest: next() };
    assert_eq!(files_from_zip, files);
    assert_eq!(files_from_zip.version(), version);
}

#[test]
fn export_is_deterministic() {
    assert_eq!(exported_zip().2, exported_zip().2);
}

#[test]
fn damaged_folder_is_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let files = AdapterFiles::from_artifact(&testing::lora_artifact(Pooling::Cls), &testing::base_summary()).unwrap();
    let version = publish_files(&files, folder.path(), &folder.path().join("temporary")).unwrap().version;
    fs::write(folder.path().join(&version).join(MANIFEST_FILE), "{}").unwrap();
    let error =
        write_peft_zip(&folder.path().join(&version), &version, &json!({}), Cursor::new(Vec::new())).unwrap_err();
    assert_eq!(error.code(), "adapter_damaged");
}

#[test]
fn nested_folder_and_extra_files_are_accepted() {
    let bytes = build_zip(&[
        ("my-adapter/README.md", b"read me"),
        ("my-adapter/adapter_config.json", b"{}"),
        ("my-adapter/adapter_model.safetensors", b"tensors"),
        ("my-adapter/training_args.bin", b"pickle"),
        ("__MACOSX/my-adapter/adapter_config.json", b"junk"),
    ]);
    let names: Vec<String> = unpack_bytes(&bytes).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [CONFIG_FILE, WEIGHTS_FILE]);
}

#[test]
fn path_traversal_is_rejected() {
    for name in ["../adapter_config.json", "/etc/passwd", "a/../../b", "C:/x", "a\\..\\b"] {
        let (code, detail) = unpack_error(&build_zip(&[(CONFIG_FILE, b"{}"), (WEIGHTS_FILE, b""), (name, b"x")]));
        assert_eq!(code, "unreadable_adapter");
        assert!(detail.contains("points outside of the zip"), "{name}: {detail}");
    }
}

#[test]
fn symlinks_are_rejected() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink(CONFIG_FILE, "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let (code, detail) = unpack_error(&writer.finish().unwrap().into_inner());
    assert_eq!(code, "unreadable_adapter");
    assert!(detail.contains("is a link"), "{detail}");
}

#[test]
fn zip_bomb_is_rejected() {
    let big = vec![0; 1_000_000];
    let (code, detail) = unpack_error(&build_zip(&[(CONFIG_FILE, b"{}"), (WEIGHTS_FILE, &big)]));
    assert_eq!(code, "unreadable_adapter");
    assert!(detail.contains("unpacks to more than 20000 bytes"), "{detail}");
    assert!(
        unpack_error(&build_zip(&[(CONFIG_FILE, &big), (WEIGHTS_FILE, b"")]))
            .1
            .contains("unpacks to more than 5000 bytes")
    );
}

#[test]
fn too_many_entries_are_rejected() {
    let names: Vec<String> = (0..11).map(|index| format!("f{index}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    assert!(unpack_error(&build_zip(&entries)).1.contains("it holds 11 entries, at most 10"));
}

#[test]
fn pickle_is_rejected_with_advice() {
    let (code, detail) = unpack_error(&build_zip(&[(CONFIG_FILE, b"{}"), ("adapter_model.bin", b"\x80\x02")]));
    assert_eq!(code, "unsupported_adapter");
    assert!(detail.contains("safe_serialization=True"), "{detail}");
}

#[test]
fn zip_must_contain_exactly_one_adapter() {
    assert!(unpack_error(&build_zip(&[("README.md", b"")])).1.contains("it holds no adapter_config.json"));
    assert!(unpack_error(&build_zip(&[(CONFIG_FILE, b"{}")])).1.contains("it holds no adapter_model.safetensors"));
    assert!(
        unpack_error(&build_zip(&[("a/adapter_config.json", b"{}"), ("b/adapter_config.json", b"{}")]))
            .1
            .contains("several")
    );
    assert!(unpack_error(b"PK but not a zip").1.contains("it is not a zip, and no .tar.gz"));
    assert!(unpack_error(b"").1.contains("it is not a zip, and no .tar.gz"));
}

#[test]
fn tar_gz_is_unpacked() {
    let files: [(&str, &[u8]); 3] = [("README.md", b"read me"), (CONFIG_FILE, b"{}"), (WEIGHTS_FILE, b"tensors")];
    for prefix in ["", "./", "my-adapter/", "./a/b/"] {
        let named: Vec<(String, &[u8])> =
            files.iter().map(|(name, bytes)| (format!("{prefix}{name}"), *bytes)).collect();
        let entries: Vec<(&str, &[u8])> = named.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let unpacked = unpack_bytes(&build_tar(&entries)).unwrap();
        let expected = [(CONFIG_FILE.to_string(), b"{}".to_vec()), (WEIGHTS_FILE.to_string(), b"tensors".to_vec())];
        assert_eq!(unpacked, expected, "{prefix}");
    }
}

#[test]
fn malicious_tar_gz_is_rejected() {
    let beside = |name: &str| build_tar(&[(CONFIG_FILE, b"{}"), (WEIGHTS_FILE, b""), (name, b"x")]);
    for name in ["../adapter_config.json", "/etc/passwd", "a/../../b", "C:/x", "a\\..\\b"] {
        let (code, detail) = unpack_error(&beside(name));
        assert_eq!(code, "unreadable_adapter");
        assert!(detail.contains("points outside of the .tar.gz"), "{name}: {detail}");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo] {
        let mut builder = Builder::new(Vec::new());
        builder.append_link(&mut tar_header(kind, 0), CONFIG_FILE, "/etc/passwd").unwrap();
        let (code, detail) = unpack_error(&gzip(&builder.into_inner().unwrap()));
        assert_eq!((code, detail.contains("is a link")), ("unreadable_adapter", true), "{detail}");
    }
    let big = vec![0; 1_000_000];
    let files: [(&str, &[u8]); 2] = [(CONFIG_FILE, b"{}"), (WEIGHTS_FILE, &big[..25_000])];
    assert!(unpack_error(&build_tar(&files)).1.contains("unpacks to more than 20000 bytes"));
    let beside_a_bomb: [(&str, &[u8]); 3] = [(CONFIG_FILE, b"{}"), (WEIGHTS_FILE, b""), ("optimizer.pt", &big)];
    assert!(unpack_error(&build_tar(&beside_a_bomb)).1.contains("unpacks to more than 40000 bytes"));
    let twice: [(&str, &[u8]); 2] = [(CONFIG_FILE, b"{}"), (CONFIG_FILE, b"{}")];
    assert!(unpack_error(&build_tar(&twice)).1.contains("the same name twice"));
    let many: Vec<(&str, &[u8])> = vec![("f", b"".as_slice()); 11];
    assert_eq!(unpack_error(&build_tar(&many)).0, "unreadable_adapter");
    assert!(unpack_error(&gzip(b"no tar")).1.contains("the .tar.gz cannot be used"));
    assert!(unpack_error(&beside("optimizer.pt")[..60]).1.contains("the .tar.gz cannot be used"));
}

#[test]
fn folder_is_copied_without_leaving_its_root() {
    let home = tempfile::tempdir().unwrap();
    let (root, target) = (home.path().join("imports"), home.path().join("target"));
    let folder = root.join("one");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(folder.join(CONFIG_FILE), "{}").unwrap();
    fs::write(root.join("shared"), "tensors").unwrap();
    fs::write(home.path().join("secret"), "secret").unwrap();
    let link = |to: &Path| {
        let _ = fs::remove_file(folder.join(WEIGHTS_FILE));
        std::os::unix::fs::symlink(to, folder.join(WEIGHTS_FILE)).unwrap();
        copy_folder(&folder, &root, &target, &TEST_LIMITS)
    };
    // As in the cache of the Hugging Face hub, whose files are links.
    link(Path::new("../shared")).unwrap();
    assert_eq!(read_folder(&target)[1], (WEIGHTS_FILE.to_string(), b"tensors".to_vec()));
    let error = link(&home.path().join("secret")).unwrap_err();
    assert!(error.to_string().contains("is a link to a place outside"), "{error}");
    assert!(link(Path::new("nowhere")).unwrap_err().to_string().contains("cannot be read"));
}

proptest! {
    #[test]
    fn corrupt_tar_gz_never_panics(place in any::<prop::sample::Index>(), value in any::<u8>(), keep in any::<prop::sample::Index>()) {
        let mut bytes = build_tar(&[("a/adapter_config.json", b"{}"), ("a/adapter_model.safetensors", b"tensors")]);
        let index = place.index(bytes.len());
        bytes[index] = value;
        let _ = unpack_bytes(&bytes);
        let _ = unpack_bytes(&bytes[..keep.index(bytes.len())]);
    }

    #[test]
    fn corrupt_zip_never_panics(place in any::<prop::sample::Index>(), value in any::<u8>(), keep in any::<prop::sample::Index>()) {
        let mut bytes = build_zip(&[("a/adapter_config.json", b"{}"), ("a/adapter_model.safetensors", b"tensors")]);
        let index = place.index(bytes.len());
        bytes[index] = value;
        let _ = unpack_bytes(&bytes);
        let _ = unpack_bytes(&bytes[..keep.index(bytes.len())]);
    }
}
