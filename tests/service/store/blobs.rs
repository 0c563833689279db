//! The data directory: instances, blobs and garbage collection.

use super::helpers::expect_error;
use crate::support::samples::sha256;
use espalier::store::blobs::{DataDir, GcAction, GcReport, LiveBlobs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn open_data_dir() -> (TempDir, DataDir) {
    let root = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(&root.path().join("data")).unwrap();
    (root, data_dir)
}

fn upload(data_dir: &DataDir, content: &str) -> PathBuf {
    let file = data_dir.temp_dir().join("upload");
    fs::write(&file, content).unwrap();
    file
}

fn make_old(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - 2 * HOUR).unwrap();
}

fn put_adapter(data_dir: &DataDir, digits: &str) -> PathBuf {
    let path = data_dir.adapters_dir().join(sha256(digits));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("espalier.json"), "{}").unwrap();
    path
}

#[test]
fn missing_data_directory_is_created_and_reopened() {
    let (root, data_dir) = open_data_dir();
    let instance = data_dir.instance_id();
    assert!(data_dir.temp_dir().is_dir() && data_dir.adapters_dir().is_dir());
    drop(data_dir);
    let again = DataDir::open(&root.path().join("data")).unwrap();
    assert_eq!((again.instance_id(), again.stale_instances()), (instance, &[instance][..]));
}

#[test]
fn every_process_gets_its_own_instance() {
    let (root, first) = open_data_dir();
    let second = DataDir::open(&root.path().join("data")).unwrap();
    assert_ne!(first.instance_id(), second.instance_id());
    assert_eq!(second.stale_instances(), [second.instance_id()]);
    assert_ne!(first.temp_dir(), second.temp_dir());
}

#[test]
fn unlocked_instances_are_stale_and_removed() {
    let (root, first) = open_data_dir();
    let path = root.path().join("data");
    let second = DataDir::open(&path).unwrap();
    let running = DataDir::open(&path).unwrap();
    let (stale, stale_temp_dir) = ([first.instance_id(), second.instance_id()], second.temp_dir());
    fs::write(first.temp_dir().join("half an upload"), "x").unwrap();
    drop((first, second));
    let next = DataDir::open(&path).unwrap();
    assert_eq!(next.stale_instances(), stale);
    assert_eq!(next.instance_id(), stale[0]);
    assert_eq!(fs::read_dir(next.temp_dir()).unwrap().count(), 0, "emptied");
    assert!(!stale_temp_dir.exists() && running.temp_dir().exists());
    let another = DataDir::open(&path).unwrap();
    assert!(!stale.contains(&another.instance_id()), "a removed instance is not used again");
}

#[test]
fn data_directory_of_a_newer_format_is_rejected() {
    let (root, data_dir) = open_data_dir();
    drop(data_dir);
    fs::write(root.path().join("data/format"), "2\n").unwrap();
    let error = expect_error(DataDir::open(&root.path().join("data")), "data_folder_too_new");
    assert!(error.to_string().contains("format 2"), "{error}");
    fs::write(root.path().join("data/format"), "something").unwrap();
    expect_error(DataDir::open(&root.path().join("data")), "data_folder_unknown");
}

#[test]
fn data_directory_with_foreign_files_is_rejected() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("datasets")).unwrap();
    let error = expect_error(DataDir::open(root.path()), "data_folder_unknown");
    assert!(error.to_string().contains("not a data folder"), "{error}");
    assert!(!root.path().join("format").exists());
}

#[test]
fn error_of_an_unwritable_data_directory_names_it() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = expect_error(DataDir::open(&file.join("data")), "data_folder_unusable");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn a_dataset_file_is_written_and_removed() {
    let (_root, data_dir) = open_data_dir();
    let file = upload(&data_dir, "text,label");
    let path = data_dir.put_dataset(&file, &sha256("a1")).unwrap();
    assert_eq!(path, data_dir.dataset_path(&sha256("a1")));
    assert_eq!(fs::read_to_string(&path).unwrap(), "text,label");
    assert!(!file.exists());
    data_dir.remove_dataset(&sha256("a1")).unwrap();
    data_dir.remove_dataset(&sha256("a1")).unwrap();
    assert!(!path.exists());
    expect_error(data_dir.put_dataset(&file, "../a1"), "internal");
}

#[test]
fn recently_rewritten_dataset_is_not_removed() {
    let (_root, data_dir) = open_data_dir();
    for _ in 0..2 {
        data_dir.put_dataset(&upload(&data_dir, "text,label"), &sha256("a1")).unwrap();
    }
    data_dir.remove_dataset(&sha256("a1")).unwrap();
    assert!(data_dir.dataset_path(&sha256("a1")).exists(), "its new row may not be added yet");
    make_old(&data_dir.dataset_path(&sha256("a1")));
    assert_eq!(data_dir.garbage_collect(&LiveBlobs::default(), HOUR, GcAction::Remove).unwrap(), GcReport::default());
    assert_eq!(data_dir.garbage_collect(&LiveBlobs::default(), Duration::ZERO, GcAction::Remove).unwrap().datasets, 1);
}

#[test]
fn pinned_adapter_is_not_removed() {
    let (_root, data_dir) = open_data_dir();
    let (pinned, unpinned) = (put_adapter(&data_dir, "a1"), put_adapter(&data_dir, "a2"));
    assert!(data_dir.pin_adapter(&sha256("a1")).unwrap());
    data_dir.remove_adapter(&sha256("a1")).unwrap();
    data_dir.remove_adapter(&sha256("a2")).unwrap();
    assert!(pinned.exists() && !unpinned.exists());
    assert!(!data_dir.pin_adapter(&sha256("a2")).unwrap(), "it has to be written again");
}

#[test]
fn checkpoints_of_a_job_are_removed() {
    let (_root, data_dir) = open_data_dir();
    let job = Uuid::now_v7();
    fs::create_dir_all(data_dir.job_checkpoint_dir(job).join("step-1")).unwrap();
    data_dir.remove_checkpoints(job).unwrap();
    data_dir.remove_checkpoints(job).unwrap();
    assert!(!data_dir.job_checkpoint_dir(job).exists());
}

#[test]
fn garbage_collection_removes_old_unreferenced_blobs() {
    let (_root, data_dir) = open_data_dir();
    let (unfinished, finished, recent) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    for digits in ["a1", "a2", "a3"] {
        data_dir.put_dataset(&upload(&data_dir, digits), &sha256(digits)).unwrap();
        put_adapter(&data_dir, digits);
    }
    for job in [unfinished, finished, recent] {
        fs::create_dir(data_dir.job_checkpoint_dir(job)).unwrap();
    }
    let foreign = data_dir.adapters_dir().join("notes");
    fs::create_dir(&foreign).unwrap();
    for digits in ["a1", "a2"] {
        make_old(&data_dir.dataset_path(&sha256(digits)));
        make_old(&data_dir.adapters_dir().join(sha256(digits)));
    }
    for path in [data_dir.job_checkpoint_dir(unfinished), data_dir.job_checkpoint_dir(finished), foreign.clone()] {
        make_old(&path);
    }
    let live = LiveBlobs {
        dataset_hashes: [sha256("a1")].into(),
        adapter_versions: [sha256("a1")].into(),
        resumable_jobs: [unfinished].into(),
    };
    let garbage = GcReport { datasets: 1, adapters: 1, checkpoints: 1, bytes: 4 };
    assert_eq!(data_dir.garbage_collect(&live, HOUR, GcAction::Report).unwrap(), garbage);
    assert_eq!(data_dir.garbage_collect(&live, HOUR, GcAction::Remove).unwrap(), garbage);
    assert_eq!(data_dir.garbage_collect(&live, HOUR, GcAction::Remove).unwrap(), GcReport::default());
    for (digits, kept) in [("a1", true), ("a2", false), ("a3", true)] {
        assert_eq!(data_dir.dataset_path(&sha256(digits)).exists(), kept, "{digits}");
        assert_eq!(data_dir.adapters_dir().join(sha256(digits)).exists(), kept, "{digits}");
    }
    assert!(data_dir.job_checkpoint_dir(unfinished).exists() && data_dir.job_checkpoint_dir(recent).exists());
    assert!(!data_dir.job_checkpoint_dir(finished).exists() && foreign.exists());
}
