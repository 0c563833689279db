//! Datasets: adding, sharing and deleting them.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier_core::dataset::OnBadRows;
use espalier_core::error::Error;
use uuid::Uuid;

on_both_databases!(
    a_dataset_is_read_as_it_was_added,
    dataset_of_another_owner_is_not_found,
    the_same_file_with_the_same_options_is_one_dataset,
    a_dataset_is_not_deleted_while_an_unfinished_job_uses_it,
    a_validation_dataset_of_a_paused_job_is_not_deleted,
    a_hash_is_unreferenced_once_its_last_dataset_is_deleted,
    deleted_dataset_can_be_added_again,
    text_with_a_nul_character_is_rejected,
);

async fn a_dataset_is_read_as_it_was_added(db: &Database) {
    let before = db.now().await.unwrap();
    let added = db.add_dataset(new_dataset("a1")).await.unwrap();
    assert_eq!(added, db.dataset(OWNER, added.id).await.unwrap());
    assert_eq!((added.owner.as_str(), added.file_name.as_deref()), (OWNER, Some("intents.csv")));
    assert_eq!((added.hash, added.bytes), (sha256("a1"), 1234));
    assert_eq!((added.options, added.report), (options(), report()));
    assert!(before <= added.created_at && added.created_at <= db.now().await.unwrap());
}

async fn dataset_of_another_owner_is_not_found(db: &Database) {
    let added = add_dataset(&**db).await;
    expect_error(db.dataset(OTHER_OWNER, added.id).await, "dataset_not_found");
    expect_error(db.delete_dataset(OTHER_OWNER, added.id).await, "dataset_not_found");
    assert!(db.datasets(OTHER_OWNER, ALL).await.unwrap().is_empty());
    let error = expect_error(db.dataset(OWNER, Uuid::now_v7()).await, "dataset_not_found");
    assert!(matches!(error, Error::NotFound(_)));
}

async fn the_same_file_with_the_same_options_is_one_dataset(db: &Database) {
    let first = db.add_dataset(new_dataset("a1")).await.unwrap();
    let mut again = new_dataset("a1");
    again.file_name = None;
    assert_eq!(db.add_dataset(again).await.unwrap(), first);

    let mut with_other_options = new_dataset("a1");
    with_other_options.options.on_bad_rows = OnBadRows::Refuse;
    let with_other_options = db.add_dataset(with_other_options).await.unwrap();
    let mut of_another = new_dataset("a1");
    of_another.owner = OTHER_OWNER.to_string();
    let of_another = db.add_dataset(of_another).await.unwrap();
    assert!(first.id != with_other_options.id && first.id != of_another.id);
    assert_eq!(db.referenced_dataset_hashes().await.unwrap(), [sha256("a1")]);
}

async fn a_dataset_is_not_deleted_while_an_unfinished_job_uses_it(db: &Database) {
    let job = add_job(&**db).await;
    let error = expect_error(db.delete_dataset(OWNER, job.dataset_id).await, "dataset_in_use");
    assert!(error.to_string().contains(&job.id.to_string()), "{error}");
    let claim = claim(&**db).await.unwrap();
    expect_error(db.delete_dataset(OWNER, job.dataset_id).await, "dataset_in_use");
    db.fail_job(&claim.lease, &job_error()).await.unwrap();
    assert_eq!(db.delete_dataset(OWNER, job.dataset_id).await.unwrap(), Some(sha256("da7a")));
    assert_eq!(super::helpers::job(&**db, job.id).await.dataset_id, job.dataset_id);
}

async fn a_validation_dataset_of_a_paused_job_is_not_deleted(db: &Database) {
    let validation = db.add_dataset(new_dataset("b2")).await.unwrap();
    let mut new = new_job(add_dataset(&**db).await.id);
    new.validation_dataset_id = Some(validation.id);
    let job = db.add_job(new, MAX_QUEUED).await.unwrap();
    db.pause_job(OWNER, job.id).await.unwrap();
    expect_error(db.delete_dataset(OWNER, validation.id).await, "dataset_in_use");
    db.cancel_job(OWNER, job.id).await.unwrap();
    assert_eq!(db.delete_dataset(OWNER, validation.id).await.unwrap(), Some(sha256("b2")));
}

async fn a_hash_is_unreferenced_once_its_last_dataset_is_deleted(db: &Database) {
    let first = db.add_dataset(new_dataset("a1")).await.unwrap();
    let mut of_another = new_dataset("a1");
    of_another.owner = OTHER_OWNER.to_string();
    let second = db.add_dataset(of_another).await.unwrap();
    assert_eq!(db.delete_dataset(OWNER, first.id).await.unwrap(), None);
    assert_eq!(db.referenced_dataset_hashes().await.unwrap(), [sha256("a1")]);
    assert_eq!(db.delete_dataset(OTHER_OWNER, second.id).await.unwrap(), Some(sha256("a1")));
    assert!(db.referenced_dataset_hashes().await.unwrap().is_empty());
}

async fn deleted_dataset_can_be_added_again(db: &Database) {
    let first = add_dataset(&**db).await;
    db.delete_dataset(OWNER, first.id).await.unwrap();
    expect_error(db.dataset(OWNER, first.id).await, "dataset_not_found");
    expect_error(db.delete_dataset(OWNER, first.id).await, "dataset_not_found");
    expect_error(db.add_job(new_job(first.id), MAX_QUEUED).await, "dataset_gone");
    assert_ne!(add_dataset(&**db).await.id, first.id);
}

async fn text_with_a_nul_character_is_rejected(db: &Database) {
    let mut named = new_dataset("a1");
    named.file_name = Some("in\0tents.csv".to_string());
    let error = expect_error(db.add_dataset(named).await, "nul_character");
    assert!(matches!(error, Error::Invalid(_)));
    let mut labelled = new_dataset("a1");
    labelled.report.labels[0].label = "\0".to_string();
    expect_error(db.add_dataset(labelled).await, "nul_character");
    assert!(db.datasets(OWNER, ALL).await.unwrap().is_empty());
}
