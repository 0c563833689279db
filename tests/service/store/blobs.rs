//! The data folder: who uses it, what is kept and what is removed.

use super::scene::refused;
use crate::support::values::sha256;
use espalier::store::blobs::{DataFolder, Needed, Swept};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn opened() -> (TempDir, DataFolder) {
    let root = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(&root.path().join("data")).unwrap();
    (root, folder)
}

fn upload(folder: &DataFolder, content: &str) -> PathBuf {
    let file = folder.temporary().join("upload");
    fs::write(&file, content).unwrap();
    file
}

fn make_old(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - 2 * HOUR).unwrap();
}

fn an_adapter(folder: &DataFolder, digits: &str) -> PathBuf {
    let path = folder.adapters().join(sha256(digits));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("espalier.json"), "{}").unwrap();
    path
}

#[test]
fn a_folder_is_made_where_it_is_missing_and_found_again() {
    let (root, folder) = opened();
    let instance = folder.instance();
    assert!(folder.temporary().is_dir() && folder.adapters().is_dir());
    drop(folder);
    let again = DataFolder::open(&root.path().join("data")).unwrap();
    assert_eq!((again.instance(), again.abandoned()), (instance, &[instance][..]));
}

#[test]
fn each_process_has_an_instance_of_its_own() {
    let (root, first) = opened();
    let second = DataFolder::open(&root.path().join("data")).unwrap();
    assert_ne!(first.instance(), second.instance());
    assert_eq!(second.abandoned(), [second.instance()]);
    assert_ne!(first.temporary(), second.temporary());
}

#[test]
fn the_instances_of_dead_processes_are_abandoned_and_end() {
    let (root, first) = opened();
    let path = root.path().join("data");
    let second = DataFolder::open(&path).unwrap();
    let living = DataFolder::open(&path).unwrap();
    let (dead, left) = ([first.instance(), second.instance()], second.temporary());
    fs::write(first.temporary().join("half an upload"), "x").unwrap();
    drop((first, second));
    let next = DataFolder::open(&path).unwrap();
    assert_eq!(next.abandoned(), dead);
    assert_eq!(next.instance(), dead[0]);
    assert_eq!(fs::read_dir(next.temporary()).unwrap().count(), 0, "emptied");
    assert!(!left.exists() && living.temporary().exists());
    let another = DataFolder::open(&path).unwrap();
    assert!(!dead.contains(&another.instance()), "an instance that has ended is not used again");
}

#[test]
fn a_folder_of_a_newer_format_is_refused() {
    let (root, folder) = opened();
    drop(folder);
    fs::write(root.path().join("data/format"), "2\n").unwrap();
    let error = refused(DataFolder::open(&root.path().join("data")), "data_folder_too_new");
    assert!(error.to_string().contains("format 2"), "{error}");
    fs::write(root.path().join("data/format"), "something").unwrap();
    refused(DataFolder::open(&root.path().join("data")), "data_folder_unknown");
}

#[test]
fn a_folder_with_datasets_of_somebody_else_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("datasets")).unwrap();
    let error = refused(DataFolder::open(root.path()), "data_folder_unknown");
    assert!(error.to_string().contains("not a data folder"), "{error}");
    assert!(!root.path().join("format").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = refused(DataFolder::open(&file.join("data")), "data_folder_unusable");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn a_dataset_is_put_and_removed() {
    let (_root, folder) = opened();
    let file = upload(&folder, "text,label");
    let place = folder.put_dataset(&file, &sha256("a1")).unwrap();
    assert_eq!(place, folder.dataset(&sha256("a1")));
    assert_eq!(fs::read_to_string(&place).unwrap(), "text,label");
    assert!(!file.exists());
    folder.remove_dataset(&sha256("a1")).unwrap();
    folder.remove_dataset(&sha256("a1")).unwrap();
    assert!(!place.exists());
    refused(folder.put_dataset(&file, "../a1"), "internal");
}

#[test]
fn a_dataset_that_was_just_put_again_is_not_removed() {
    let (_root, folder) = opened();
    for _ in 0..2 {
        folder.put_dataset(&upload(&folder, "text,label"), &sha256("a1")).unwrap();
    }
    folder.remove_dataset(&sha256("a1")).unwrap();
    assert!(folder.dataset(&sha256("a1")).exists(), "its new row may be on its way");
    make_old(&folder.dataset(&sha256("a1")));
    assert_eq!(folder.sweep(&Needed::default(), HOUR).unwrap(), Swept::default());
    assert_eq!(folder.sweep(&Needed::default(), Duration::ZERO).unwrap().datasets, 1);
}

#[test]
fn an_adapter_that_is_held_is_not_removed() {
    let (_root, folder) = opened();
    let (held, free) = (an_adapter(&folder, "a1"), an_adapter(&folder, "a2"));
    assert!(folder.hold_adapter(&sha256("a1")).unwrap());
    folder.remove_adapter(&sha256("a1")).unwrap();
    folder.remove_adapter(&sha256("a2")).unwrap();
    assert!(held.exists() && !free.exists());
    assert!(!folder.hold_adapter(&sha256("a2")).unwrap(), "it has to be written again");
}

#[test]
fn checkpoints_are_removed_with_all_they_hold() {
    let (_root, folder) = opened();
    let job = Uuid::now_v7();
    fs::create_dir_all(folder.checkpoints(job).join("step-1")).unwrap();
    folder.remove_checkpoints(job).unwrap();
    folder.remove_checkpoints(job).unwrap();
    assert!(!folder.checkpoints(job).exists());
}

#[test]
fn a_sweep_removes_what_no_row_needs_once_it_is_old() {
    let (_root, folder) = opened();
    let (open, over, young) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    for digits in ["a1", "a2", "a3"] {
        folder.put_dataset(&upload(&folder, digits), &sha256(digits)).unwrap();
        an_adapter(&folder, digits);
    }
    for job in [open, over, young] {
        fs::create_dir(folder.checkpoints(job)).unwrap();
    }
    let foreign = folder.adapters().join("notes");
    fs::create_dir(&foreign).unwrap();
    for digits in ["a1", "a2"] {
        make_old(&folder.dataset(&sha256(digits)));
        make_old(&folder.adapters().join(sha256(digits)));
    }
    for path in [folder.checkpoints(open), folder.checkpoints(over), foreign.clone()] {
        make_old(&path);
    }
    let needed = Needed { hashes: [sha256("a1")].into(), versions: [sha256("a1")].into(), open_jobs: [open].into() };
    assert_eq!(folder.sweep(&needed, HOUR).unwrap(), Swept { datasets: 1, adapters: 1, checkpoints: 1 });
    for (digits, kept) in [("a1", true), ("a2", false), ("a3", true)] {
        assert_eq!(folder.dataset(&sha256(digits)).exists(), kept, "{digits}");
        assert_eq!(folder.adapters().join(sha256(digits)).exists(), kept, "{digits}");
    }
    assert!(folder.checkpoints(open).exists() && folder.checkpoints(young).exists());
    assert!(!folder.checkpoints(over).exists() && foreign.exists());
}
