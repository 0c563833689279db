//! Adapters, their names and their versions.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{Adapter, Job, Reference, RetentionPolicy};
use espalier_core::error::Error;
use uuid::Uuid;

on_both_databases!(
    an_imported_adapter_is_found_by_id_name_and_version,
    error_of_a_missing_adapter_names_it,
    adapter_of_another_owner_is_not_found,
    an_ambiguous_version_is_refused,
    the_same_version_twice_under_a_name_is_not_ambiguous,
    deleting_repoints_the_name_to_the_previous_adapter,
    deleting_an_older_adapter_keeps_the_name,
    a_name_points_to_the_activated_version,
    a_version_is_unreferenced_once_its_last_adapter_is_deleted,
    a_job_outlives_its_adapter,
    an_adapter_is_not_deleted_while_an_unfinished_job_starts_from_it,
    job_from_a_deleted_adapter_is_rejected,
    concurrent_deletes_delete_each_adapter_once,
    name_points_to_the_newest_under_concurrent_changes,
);

fn name(name: &str) -> Reference {
    Reference::Name(name.to_string())
}

fn version(name: &str, digits: &str) -> Reference {
    Reference::Version(name.to_string(), digits.to_string())
}

async fn add(db: &Database, name: Option<&str>, digits: &str) -> Adapter {
    db.add_adapter(new_adapter(name, digits)).await.expect("an adapter is added")
}

async fn an_imported_adapter_is_found_by_id_name_and_version(db: &Database) {
    let first = add(db, Some("intents"), "0123456789").await;
    let second = add(db, Some("intents"), "abcdef0123").await;
    assert_eq!((first.name.as_deref(), first.job_id), (Some("intents"), None));
    assert_eq!(first.description, description("0123456789"));
    assert_eq!(db.adapter(OWNER, &Reference::Id(first.id)).await.unwrap().id, first.id);
    assert_eq!(db.adapter(OWNER, &name("intents")).await.unwrap(), second);
    assert_eq!(db.adapter(OWNER, &version("intents", "01234567")).await.unwrap().id, first.id);
    assert_eq!(db.adapter(OWNER, &version("intents", &sha256("abcdef0123"))).await.unwrap(), second);
    let unnamed = add(db, None, "ff").await;
    assert_eq!(db.adapter(OWNER, &Reference::Id(unnamed.id)).await.unwrap(), unnamed);
}

async fn error_of_a_missing_adapter_names_it(db: &Database) {
    add(db, Some("intents"), "0123456789").await;
    let id = Uuid::now_v7();
    let expected_texts = [
        (Reference::Id(id), id.to_string()),
        (name("other"), "\"other\"".to_string()),
        (version("intents", "99999999"), "99999999".to_string()),
        (version("other", "01234567"), "\"other\"".to_string()),
        (name("inte%"), "\"inte%\"".to_string()),
        (name("a\0b"), "a\0b".to_string()),
        (version("a\0b", "01234567"), "a\0b".to_string()),
    ];
    for (reference, text) in expected_texts {
        let error = expect_error(db.adapter(OWNER, &reference).await, "adapter_not_found");
        assert!(matches!(error, Error::NotFound(_)));
        assert!(error.to_string().contains(&text), "{error}");
    }
}

async fn adapter_of_another_owner_is_not_found(db: &Database) {
    let mine = add(db, Some("intents"), "0123456789").await;
    for reference in [Reference::Id(mine.id), name("intents"), version("intents", "01234567")] {
        expect_error(db.adapter(OTHER_OWNER, &reference).await, "adapter_not_found");
    }
    expect_error(db.delete_adapter(OTHER_OWNER, mine.id).await, "adapter_not_found");
    assert!(db.adapters(OTHER_OWNER, ALL).await.unwrap().is_empty());
    let mut theirs = new_adapter(Some("intents"), "99");
    theirs.owner = OTHER_OWNER.to_string();
    let theirs = db.add_adapter(theirs).await.unwrap();
    assert_eq!(db.adapter(OTHER_OWNER, &name("intents")).await.unwrap(), theirs);
    assert_eq!(db.adapter(OWNER, &name("intents")).await.unwrap(), mine);
}

async fn an_ambiguous_version_is_refused(db: &Database) {
    add(db, Some("intents"), "0123456789a").await;
    add(db, Some("intents"), "0123456789b").await;
    add(db, Some("other"), "0123456789c").await;
    let error = expect_error(db.adapter(OWNER, &version("intents", "0123456789")).await, "ambiguous_version");
    assert!(matches!(error, Error::Invalid(_)));
    let found = db.adapter(OWNER, &version("intents", "0123456789b")).await.unwrap();
    assert_eq!(found.description.version, sha256("0123456789b"));
    db.adapter(OWNER, &version("other", "0123456789")).await.unwrap();
}

async fn the_same_version_twice_under_a_name_is_not_ambiguous(db: &Database) {
    add(db, Some("intents"), "0123456789").await;
    let newest = add(db, Some("intents"), "0123456789").await;
    assert_eq!(db.adapter(OWNER, &version("intents", "01234567")).await.unwrap(), newest);
}

async fn deleting_repoints_the_name_to_the_previous_adapter(db: &Database) {
    let first = add(db, Some("intents"), "01").await;
    let second = add(db, Some("intents"), "02").await;
    let third = add(db, Some("intents"), "03").await;
    add(db, Some("other"), "04").await;
    for (deleted, previous) in [(&third, &second), (&second, &first)] {
        db.delete_adapter(OWNER, deleted.id).await.unwrap();
        assert_eq!(db.adapter(OWNER, &name("intents")).await.unwrap().id, previous.id);
    }
    db.delete_adapter(OWNER, first.id).await.unwrap();
    expect_error(db.adapter(OWNER, &name("intents")).await, "adapter_not_found");
    expect_error(db.delete_adapter(OWNER, first.id).await, "adapter_not_found");
    let again = add(db, Some("intents"), "05").await;
    assert_eq!(db.adapter(OWNER, &name("intents")).await.unwrap(), again);
}

async fn deleting_an_older_adapter_keeps_the_name(db: &Database) {
    let first = add(db, Some("intents"), "01").await;
    let second = add(db, Some("intents"), "02").await;
    db.delete_adapter(OWNER, first.id).await.unwrap();
    assert_eq!(db.adapter(OWNER, &name("intents")).await.unwrap(), second);
}

async fn a_name_points_to_the_activated_version(db: &Database) {
    let first = add(db, Some("intents"), "01").await;
    let second = add(db, Some("intents"), "02").await;
    let third = add(db, Some("intents"), "03").await;
    let current = async || {
        let listed = db.adapters(OWNER, ALL).await.unwrap();
        let current: Vec<Uuid> = listed.iter().filter(|one| one.is_current).map(|one| one.id).collect();
        assert_eq!(current, [db.adapter(OWNER, &name("intents")).await.unwrap().id]);
        current[0]
    };
    assert!(third.is_current);
    assert_eq!(current().await, third.id);
    assert!(db.activate_adapter(OWNER, first.id).await.unwrap().is_current);
    assert_eq!(current().await, first.id);
    // Retention keeps it, though it is the oldest.
    let policy = RetentionPolicy { keep_versions: Some(1), ..KEEP_ALL };
    db.delete_old_rows(&policy).await.unwrap();
    expect_error(db.adapter(OWNER, &Reference::Id(second.id)).await, "adapter_not_found");
    assert_eq!(current().await, first.id);
    db.delete_adapter(OWNER, first.id).await.unwrap();
    assert_eq!(current().await, third.id);
    expect_error(db.activate_adapter(OWNER, first.id).await, "adapter_not_found");
    expect_error(db.activate_adapter(OTHER_OWNER, third.id).await, "adapter_not_found");
    let unnamed = add(db, None, "04").await;
    assert!(!unnamed.is_current);
    expect_error(db.activate_adapter(OWNER, unnamed.id).await, "adapter_without_name");
}

async fn a_version_is_unreferenced_once_its_last_adapter_is_deleted(db: &Database) {
    let first = add(db, Some("intents"), "01").await;
    let second = add(db, None, "01").await;
    assert_eq!(db.referenced_adapter_versions().await.unwrap(), [sha256("01")]);
    assert_eq!(db.delete_adapter(OWNER, first.id).await.unwrap(), None);
    assert_eq!(db.delete_adapter(OWNER, second.id).await.unwrap(), Some(sha256("01")));
    assert!(db.referenced_adapter_versions().await.unwrap().is_empty());
}

async fn a_job_outlives_its_adapter(db: &Database) {
    let claim = add_and_claim_job(&**db).await;
    let mut new = new_adapter(Some("intents"), "01");
    new.job_id = Some(claim.job.id);
    let adapter = db.publish(&claim.lease, new, &serde_json::json!({})).await.unwrap();
    db.delete_adapter(OWNER, adapter.id).await.unwrap();
    assert_eq!(job(&**db, claim.job.id).await.adapter_id, Some(adapter.id));
}

/// Adds a job that starts from the version that begins with these digits.
async fn job_from(db: &Database, digits: &str) -> Result<Job, Error> {
    db.add_job(new_job_from_adapter(add_dataset(&**db).await.id, digits), MAX_QUEUED).await
}

async fn an_adapter_is_not_deleted_while_an_unfinished_job_starts_from_it(db: &Database) {
    let (source, other) = (add(db, Some("intents"), "01").await, add(db, Some("intents"), "02").await);
    let job = job_from(db, "01").await.unwrap();
    let error = expect_error(db.delete_adapter(OWNER, source.id).await, "adapter_in_use");
    assert!(error.to_string().contains(&job.id.to_string()), "{error}");
    db.delete_adapter(OWNER, other.id).await.unwrap();
    db.pause_job(OWNER, job.id).await.unwrap();
    expect_error(db.delete_adapter(OWNER, source.id).await, "adapter_in_use");
    db.cancel_job(OWNER, job.id).await.unwrap();
    assert_eq!(db.delete_adapter(OWNER, source.id).await.unwrap(), Some(sha256("01")));
}

async fn job_from_a_deleted_adapter_is_rejected(db: &Database) {
    let source = add(db, None, "01").await;
    db.delete_adapter(OWNER, source.id).await.unwrap();
    expect_error(job_from(db, "01").await, "adapter_gone");
    let mut of_another = new_adapter(None, "01");
    of_another.owner = OTHER_OWNER.to_string();
    db.add_adapter(of_another).await.unwrap();
    expect_error(job_from(db, "01").await, "adapter_gone");
}

async fn concurrent_deletes_delete_each_adapter_once(db: &Database) {
    let mut ids = Vec::new();
    for _ in 0..16 {
        ids.push(add(db, Some("intents"), "01").await.id);
    }
    // Two tasks delete each adapter at the same time; one of them must get `adapter_not_found`.
    let deleting: Vec<_> = ids
        .iter()
        .chain(&ids)
        .map(|id| {
            let (store, id) = (db.store(), *id);
            tokio::spawn(async move { store.delete_adapter(OWNER, id).await })
        })
        .collect();
    let mut deleted = 0;
    for task in deleting {
        match task.await.unwrap() {
            Ok(_) => deleted += 1,
            Err(error) => assert_eq!(error.code(), "adapter_not_found", "{error}"),
        }
    }
    assert_eq!(deleted, 16);
    assert!(db.adapters(OWNER, ALL).await.unwrap().is_empty());
    expect_error(db.adapter(OWNER, &name("intents")).await, "adapter_not_found");
}

async fn name_points_to_the_newest_under_concurrent_changes(db: &Database) {
    let working: Vec<_> = (0..6)
        .map(|_| {
            let store = db.store();
            tokio::spawn(async move {
                for _ in 0..5 {
                    let older = store.add_adapter(new_adapter(Some("intents"), "01")).await.unwrap();
                    store.add_adapter(new_adapter(Some("intents"), "02")).await.unwrap();
                    store.delete_adapter(OWNER, older.id).await.unwrap();
                }
            })
        })
        .collect();
    for task in working {
        task.await.unwrap();
    }
    let listed = db.adapters(OWNER, ALL).await.unwrap();
    assert_eq!(listed.len(), 30);
    assert_eq!(db.adapter(OWNER, &name("intents")).await.unwrap(), listed[0]);
}
