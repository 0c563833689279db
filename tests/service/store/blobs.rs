//! The data folder: who uses it, what is kept and what is removed.

use super::helpers::expect_error;
use crate::support::samples::sha256;
use espalier::store::blobs::{DataDir, GcReport, LiveBlobs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn open_data_dir() -> (TempDir, DataDir) {
    let root = tempfile::tempdir().unwrap();
    let folder = DataDir::open(&root.path().join("data")).unwrap();
    (root, folder)
}

fn upload(folder: &DataDir, content: &str) -> PathBuf {
    let file = folder.temp_dir().join("upload");
    fs::write(&file, content).unwrap();
    file
}

fn make_old(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - 2 * HOUR).unwrap();
}

fn put_adapter(folder: &DataDir, digits: &str) -> PathBuf {
    let path = folder.adapters_dir().join(sha256(digits));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("espalier.json"), "{}").unwrap();
    path
}

#[test]
fn a_folder_is_made_where_it_is_missing_and_found_again() {
    let (root, folder) = open_data_dir();
    let instance = folder.instance_id();
    assert!(folder.temp_dir().is_dir() && folder.adapters_dir().is_dir());
    drop(folder);
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
    let living = DataDir::open(&path).unwrap();
    let (dead, left) = ([first.instance_id(), second.instance_id()], second.temp_dir());
    fs::write(first.temp_dir().join("half an upload"), "x").unwrap();
    drop((first, second));
    let next = DataDir::open(&path).unwrap();
    assert_eq!(next.stale_instances(), dead);
    assert_eq!(next.instance_id(), dead[0]);
    assert_eq!(fs::read_dir(next.temp_dir()).unwrap().count(), 0, "emptied");
    assert!(!left.exists() && living.temp_dir().exists());
    let another = DataDir::open(&path).unwrap();
    assert!(!dead.contains(&another.instance_id()), "an instance that has ended is not used again");
}

#[test]
fn a_folder_of_a_newer_format_is_refused() {
    let (root, folder) = open_data_dir();
    drop(folder);
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
fn a_folder_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = expect_error(DataDir::open(&file.join("data")), "data_folder_unusable");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn a_dataset_is_put_and_removed() {
    let (_root, folder) = open_data_dir();
    let file = upload(&folder, "text,label");
    let place = folder.put_dataset(&file, &sha256("a1")).unwrap();
    assert_eq!(place, folder.dataset_path(&sha256("a1")));
    assert_eq!(fs::read_to_string(&place).unwrap(), "text,label");
    assert!(!file.exists());
    folder.remove_dataset(&sha256("a1")).unwrap();
    folder.remove_dataset(&sha256("a1")).unwrap();
    assert!(!place.exists());
    expect_error(folder.put_dataset(&file, "../a1"), "internal");
}

#[test]
fn recently_rewritten_dataset_is_not_removed() {
    let (_root, folder) = open_data_dir();
    for _ in 0..2 {
        folder.put_dataset(&upload(&folder, "text,label"), &sha256("a1")).unwrap();
    }
    folder.remove_dataset(&sha256("a1")).unwrap();
    assert!(folder.dataset_path(&sha256("a1")).exists(), "its new row may be on its way");
    make_old(&folder.dataset_path(&sha256("a1")));
    assert_eq!(folder.garbage_collect(&LiveBlobs::default(), HOUR).unwrap(), GcReport::default());
    assert_eq!(folder.garbage_collect(&LiveBlobs::default(), Duration::ZERO).unwrap().datasets, 1);
}

#[test]
fn pinned_adapter_is_not_removed() {
    let (_root, folder) = open_data_dir();
    let (held, free) = (put_adapter(&folder, "a1"), put_adapter(&folder, "a2"));
    assert!(folder.pin_adapter(&sha256("a1")).unwrap());
    folder.remove_adapter(&sha256("a1")).unwrap();
    folder.remove_adapter(&sha256("a2")).unwrap();
    assert!(held.exists() && !free.exists());
    assert!(!folder.pin_adapter(&sha256("a2")).unwrap(), "it has to be written again");
}

#[test]
fn checkpoints_are_removed_with_all_they_hold() {
    let (_root, folder) = open_data_dir();
    let job = Uuid::now_v7();
    fs::create_dir_all(folder.job_checkpoint_dir(job).join("step-1")).unwrap();
    folder.remove_checkpoints(job).unwrap();
    folder.remove_checkpoints(job).unwrap();
    assert!(!folder.job_checkpoint_dir(job).exists());
}

#[test]
fn garbage_collection_removes_old_unreferenced_blobs() {
    let (_root, folder) = open_data_dir();
    let (open, over, young) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    for digits in ["a1", "a2", "a3"] {
        folder.put_dataset(&upload(&folder, digits), &sha256(digits)).unwrap();
        put_adapter(&folder, digits);
    }
    for job in [open, over, young] {
        fs::create_dir(folder.job_checkpoint_dir(job)).unwrap();
    }
    let foreign = folder.adapters_dir().join("notes");
    fs::create_dir(&foreign).unwrap();
    for digits in ["a1", "a2"] {
        make_old(&folder.dataset_path(&sha256(digits)));
        make_old(&folder.adapters_dir().join(sha256(digits)));
    }
    for path in [folder.job_checkpoint_dir(open), folder.job_checkpoint_dir(over), foreign.clone()] {
        make_old(&path);
    }
    let needed = LiveBlobs {
        dataset_hashes: [sha256("a1")].into(),
        adapter_versions: [sha256("a1")].into(),
        unfinished_jobs: [open].into(),
    };
    assert_eq!(folder.garbage_collect(&needed, HOUR).unwrap(), GcReport { datasets: 1, adapters: 1, checkpoints: 1 });
    for (digits, kept) in [("a1", true), ("a2", false), ("a3", true)] {
        assert_eq!(folder.dataset_path(&sha256(digits)).exists(), kept, "{digits}");
        assert_eq!(folder.adapters_dir().join(sha256(digits)).exists(), kept, "{digits}");
    }
    assert!(folder.job_checkpoint_dir(open).exists() && folder.job_checkpoint_dir(young).exists());
    assert!(!folder.job_checkpoint_dir(over).exists() && foreign.exists());
}
