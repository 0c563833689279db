//! Pagination of lists, also while rows are added and deleted.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{PageRequest, Status};
use espalier_core::error::Error;
use uuid::Uuid;

on_both_databases!(
    datasets_are_listed_newest_first,
    jobs_are_listed_newest_first_and_by_status,
    adapters_are_listed_newest_first,
    a_list_can_be_deleted_page_by_page,
    concurrent_inserts_do_not_shift_pages,
    unknown_cursor_is_rejected,
);

fn page(limit: u32, after: Option<Uuid>) -> PageRequest {
    PageRequest { limit, after }
}

async fn datasets_are_listed_newest_first(db: &Database) {
    let mut ids = Vec::new();
    for digits in ["1", "2", "3", "4", "5"] {
        ids.insert(0, db.add_dataset(new_dataset(digits)).await.unwrap().id);
    }
    let mut listed = Vec::new();
    loop {
        let some = db.datasets(OWNER, page(2, listed.last().copied())).await.unwrap();
        if some.is_empty() {
            break;
        }
        listed.extend(some.into_iter().map(|dataset| dataset.id));
    }
    assert_eq!(listed, ids);
}

async fn jobs_are_listed_newest_first_and_by_status(db: &Database) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, add_job(&**db).await.id);
    }
    db.pause_job(OWNER, ids[1]).await.unwrap();
    let ids_of = |jobs: Vec<espalier::store::Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids_of(db.jobs(OWNER, None, ALL).await.unwrap()), ids);
    assert_eq!(ids_of(db.jobs(OWNER, None, page(2, Some(ids[1]))).await.unwrap()), ids[2..4]);
    assert_eq!(ids_of(db.jobs(OWNER, Some(Status::Paused), ALL).await.unwrap()), ids[1..2]);
    let queued = db.jobs(OWNER, Some(Status::Queued), page(2, Some(ids[0]))).await.unwrap();
    assert_eq!(ids_of(queued), ids[2..4]);
    assert!(db.jobs(OWNER, None, page(2, Some(ids[4]))).await.unwrap().is_empty());
}

async fn adapters_are_listed_newest_first(db: &Database) {
    let mut ids = Vec::new();
    for digits in ["1", "2", "3"] {
        ids.insert(0, db.add_adapter(new_adapter(None, digits)).await.unwrap().id);
    }
    let listed = db.adapters(OWNER, page(2, None)).await.unwrap();
    assert_eq!(listed.iter().map(|adapter| adapter.id).collect::<Vec<_>>(), ids[..2]);
    assert_eq!(db.adapters(OWNER, page(2, Some(ids[1]))).await.unwrap()[0].id, ids[2]);
}

async fn a_list_can_be_deleted_page_by_page(db: &Database) {
    for number in 0..7 {
        db.add_adapter(new_adapter(Some("intents"), &format!("{number}"))).await.unwrap();
        db.add_dataset(new_dataset(&format!("{number}"))).await.unwrap();
    }
    let (mut adapter, mut dataset) = (None, None);
    for expected in [3, 3, 1, 0] {
        let adapters = db.adapters(OWNER, page(3, adapter)).await.unwrap();
        let datasets = db.datasets(OWNER, page(3, dataset)).await.unwrap();
        assert_eq!((adapters.len(), datasets.len()), (expected, expected));
        for one in adapters {
            db.delete_adapter(OWNER, one.id).await.unwrap();
            adapter = Some(one.id);
        }
        for one in datasets {
            db.delete_dataset(OWNER, one.id).await.unwrap();
            dataset = Some(one.id);
        }
    }
    assert!(db.adapters(OWNER, ALL).await.unwrap().is_empty());
}

async fn concurrent_inserts_do_not_shift_pages(db: &Database) {
    let (first, second) = (add_job(&**db).await.id, add_job(&**db).await.id);
    let newest = db.jobs(OWNER, None, page(1, None)).await.unwrap();
    assert_eq!(newest[0].id, second);
    add_job(&**db).await;
    assert_eq!(db.jobs(OWNER, None, page(1, Some(second))).await.unwrap()[0].id, first);
}

async fn unknown_cursor_is_rejected(db: &Database) {
    let theirs = add_job(&**db).await.id;
    for (owner, after) in [(OWNER, Uuid::now_v7()), (OTHER_OWNER, theirs)] {
        let error = expect_error(db.jobs(owner, None, page(1, Some(after))).await, "unknown_after");
        assert!(matches!(error, Error::Invalid(_)));
    }
}
