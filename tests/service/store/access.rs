//! Keys, owners, shared adapters, quotas, the audit log and usage.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use chrono::{Days, TimeDelta};
use espalier::store::{
    AuditFilter, DatasetLimits, NamePattern, NewApiKey, NewAuditEntry, NewDataset, OwnerLimits, Reference,
    RequestLimits, Scope, UsageCounts, UsageIncrement,
};
use espalier_core::error::Error;
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    a_key_is_stored_with_its_rights,
    a_revoked_key_is_not_in_the_snapshot,
    an_expired_key_is_not_in_the_snapshot,
    a_rotated_key_ends_after_its_grace_period,
    every_change_raises_the_version,
    the_last_use_of_a_key_only_advances,
    keys_are_listed_in_pages,
    limits_of_an_owner_are_replaced,
    owners_of_rows_are_listed,
    stored_bytes_and_rows_are_summed,
    a_dataset_beyond_the_quota_is_refused,
    an_adapter_beyond_the_quota_is_refused,
    a_shared_adapter_is_readable_and_not_writable,
    shares_end_with_the_adapter_or_by_replacement,
    audit_entries_are_filtered_and_paged,
    usage_is_added_to_the_day,
);

fn new_key(owner: &str, digits: &str) -> NewApiKey {
    NewApiKey {
        id: Uuid::now_v7(),
        owner: owner.to_string(),
        name: "application".to_string(),
        prefix: "esp_abc".to_string(),
        digest: sha256(digits),
        scopes: [Scope::Predict, Scope::AdaptersRead].into_iter().collect(),
        adapters: Some(vec![NamePattern("support-*".to_string())]),
        limits: RequestLimits { requests_per_minute: Some(60), ..RequestLimits::default() },
        created_by: "setting:abc".to_string(),
        expires_at: None,
    }
}

async fn a_key_is_stored_with_its_rights(db: &Database) {
    assert!(!db.access_snapshot().await.unwrap().has_keys);
    let new = new_key("acme", "aa");
    let added = db.add_api_key(new.clone()).await.unwrap();
    assert_eq!((added.id, &added.owner, &added.name, &added.prefix), (new.id, &new.owner, &new.name, &new.prefix));
    assert_eq!((added.scopes, &added.adapters, added.limits), (new.scopes, &new.adapters, new.limits));
    assert_eq!((added.expires_at, added.revoked_at, added.last_used_at), (None, None, None));
    assert_eq!(db.api_key(new.id).await.unwrap(), added);
    let snapshot = db.access_snapshot().await.unwrap();
    assert!(snapshot.has_keys);
    assert_eq!(snapshot.keys, [(new.digest, added)]);
    let error = db.api_key(Uuid::now_v7()).await.unwrap_err();
    assert_eq!(error.code(), "key_not_found");
}

async fn a_revoked_key_is_not_in_the_snapshot(db: &Database) {
    let key = db.add_api_key(new_key("acme", "aa")).await.unwrap();
    let revoked = db.revoke_api_key(key.id).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(db.revoke_api_key(key.id).await.unwrap(), revoked, "the first time stays");
    let snapshot = db.access_snapshot().await.unwrap();
    assert!(snapshot.keys.is_empty() && snapshot.has_keys, "there was a key");
}

async fn an_expired_key_is_not_in_the_snapshot(db: &Database) {
    let expires_at = db.now().await.unwrap() + TimeDelta::seconds(60);
    db.add_api_key(NewApiKey { expires_at: Some(expires_at), ..new_key("acme", "aa") }).await.unwrap();
    assert_eq!(db.access_snapshot().await.unwrap().keys.len(), 1);
    db.advance_clock(Duration::from_secs(61)).await.unwrap();
    assert!(db.access_snapshot().await.unwrap().keys.is_empty());
}

async fn a_rotated_key_ends_after_its_grace_period(db: &Database) {
    let old = db.add_api_key(new_key("acme", "aa")).await.unwrap();
    let end = db.now().await.unwrap() + TimeDelta::seconds(60);
    let new = db.rotate_api_key(old.id, new_key("acme", "bb"), end).await.unwrap();
    assert_eq!(db.access_snapshot().await.unwrap().keys.len(), 2);
    db.rotate_api_key(old.id, new_key("acme", "cc"), end + TimeDelta::seconds(60)).await.unwrap();
    db.advance_clock(Duration::from_secs(61)).await.unwrap();
    let keys = db.access_snapshot().await.unwrap().keys;
    assert_eq!(keys.len(), 2, "the first end holds");
    assert!(keys.iter().any(|(_, key)| key.id == new.id));
    let error = db.rotate_api_key(old.id, new_key("acme", "dd"), end).await.unwrap_err();
    assert_eq!(error.code(), "key_revoked");
    db.revoke_api_key(new.id).await.unwrap();
    let error = db.rotate_api_key(new.id, new_key("acme", "dd"), end).await.unwrap_err();
    assert_eq!(error.code(), "key_revoked");
    assert_eq!(db.api_keys(ALL).await.unwrap().len(), 3, "a refused rotation adds no key");
}

async fn every_change_raises_the_version(db: &Database) {
    let mut versions = vec![db.access_version().await.unwrap()];
    let key = db.add_api_key(new_key("acme", "aa")).await.unwrap();
    versions.push(db.access_version().await.unwrap());
    db.rotate_api_key(key.id, new_key("acme", "bb"), db.now().await.unwrap()).await.unwrap();
    versions.push(db.access_version().await.unwrap());
    db.revoke_api_key(key.id).await.unwrap();
    versions.push(db.access_version().await.unwrap());
    db.set_owner_limits("acme", OwnerLimits::default()).await.unwrap();
    versions.push(db.access_version().await.unwrap());
    assert!(versions.is_sorted_by(|one, other| one < other), "{versions:?}");
    assert_eq!(db.access_snapshot().await.unwrap().version, versions[4]);
}

async fn the_last_use_of_a_key_only_advances(db: &Database) {
    let key = db.add_api_key(new_key("acme", "aa")).await.unwrap();
    let now = db.now().await.unwrap();
    db.record_key_use(&[(key.id, now), (Uuid::now_v7(), now)]).await.unwrap();
    db.record_key_use(&[(key.id, now - TimeDelta::seconds(5))]).await.unwrap();
    assert_eq!(db.api_key(key.id).await.unwrap().last_used_at, Some(now));
}

async fn keys_are_listed_in_pages(db: &Database) {
    let first = db.add_api_key(new_key("acme", "aa")).await.unwrap();
    db.advance_clock(Duration::from_millis(5)).await.unwrap();
    let second = db.add_api_key(new_key("globex", "bb")).await.unwrap();
    let page = espalier::store::PageRequest { limit: 1, after: None };
    assert_eq!(db.api_keys(page).await.unwrap(), std::slice::from_ref(&second));
    let page = espalier::store::PageRequest { limit: 5, after: Some(second.id) };
    assert_eq!(db.api_keys(page).await.unwrap(), [first]);
    let page = espalier::store::PageRequest { limit: 5, after: Some(Uuid::now_v7()) };
    assert_eq!(db.api_keys(page).await.unwrap_err().code(), "unknown_after");
}

async fn limits_of_an_owner_are_replaced(db: &Database) {
    let limits = OwnerLimits { queued_jobs: Some(3), requests_per_minute: Some(5), ..OwnerLimits::default() };
    let owner = db.set_owner_limits("acme", limits).await.unwrap();
    assert_eq!((owner.name.as_str(), owner.limits), ("acme", limits));
    let other = OwnerLimits { dataset_bytes: Some(7), ..OwnerLimits::default() };
    assert_eq!(db.set_owner_limits("acme", other).await.unwrap().limits, other);
    assert_eq!(db.access_snapshot().await.unwrap().owners.len(), 1);
}

async fn owners_of_rows_are_listed(db: &Database) {
    add_job(&**db).await;
    db.add_api_key(new_key("acme", "aa")).await.unwrap();
    db.set_owner_limits("globex", OwnerLimits::default()).await.unwrap();
    let listed = db.owners().await.unwrap();
    let owners: Vec<&str> = listed.iter().map(|(owner, _)| owner.name.as_str()).collect();
    let mut expected = ["acme", "globex", OWNER];
    expected.sort_unstable();
    assert_eq!(owners, expected);
    for (owner, storage) in &listed {
        assert_eq!(db.owner(&owner.name).await.unwrap().as_ref(), Some(owner));
        assert_eq!(db.owner_storage(&owner.name).await.unwrap(), *storage);
    }
    assert_eq!(db.owner("unknown").await.unwrap(), None);
}

async fn stored_bytes_and_rows_are_summed(db: &Database) {
    let dataset = db.add_dataset(new_dataset("da")).await.unwrap();
    db.add_dataset(new_dataset("db")).await.unwrap();
    db.add_adapter(new_adapter(Some("intents"), "ad")).await.unwrap();
    let storage = db.owner_storage(OWNER).await.unwrap();
    assert_eq!((storage.datasets, storage.dataset_bytes), (2, 2 * dataset.bytes));
    assert_eq!(storage.dataset_rows, 2 * dataset.report.rows);
    assert_eq!((storage.adapters, storage.adapter_bytes), (1, 98_765));
    assert_eq!(db.owner_storage("other").await.unwrap(), Default::default());
    assert_eq!(db.owners().await.unwrap()[0].1, storage);
}

async fn a_dataset_beyond_the_quota_is_refused(db: &Database) {
    let limits = DatasetLimits { bytes: Some(2500), rows: None };
    let with_limits = |digits: &str| NewDataset { limits, ..new_dataset(digits) };
    db.add_dataset(with_limits("da")).await.unwrap();
    db.add_dataset(with_limits("db")).await.unwrap();
    let error = db.add_dataset(with_limits("dc")).await.unwrap_err();
    assert!(matches!(&error, Error::QuotaExceeded(problem) if problem.code == "dataset_bytes_exceeded"), "{error}");
    assert_eq!(db.datasets(OWNER, ALL).await.unwrap().len(), 2);
    db.add_dataset(with_limits("da")).await.expect("the same dataset takes no more space");
    let rows = db.datasets(OWNER, ALL).await.unwrap().iter().map(|dataset| dataset.report.rows).sum();
    let limits = DatasetLimits { bytes: None, rows: Some(rows) };
    let error = db.add_dataset(NewDataset { limits, ..new_dataset("dd") }).await.unwrap_err();
    assert_eq!(error.code(), "dataset_rows_exceeded");
}

async fn an_adapter_beyond_the_quota_is_refused(db: &Database) {
    let mut adapter = new_adapter(Some("intents"), "ad");
    adapter.max_owner_bytes = Some(100_000);
    db.add_adapter(adapter.clone()).await.unwrap();
    adapter.id = Uuid::now_v7();
    assert_eq!(db.add_adapter(adapter).await.unwrap_err().code(), "adapter_bytes_exceeded");
    assert_eq!(db.adapters(OWNER, ALL).await.unwrap().len(), 1);
}

async fn a_shared_adapter_is_readable_and_not_writable(db: &Database) {
    let adapter = db.add_adapter(new_adapter(Some("intents"), "ad")).await.unwrap();
    let by_id = Reference::Id(adapter.id);
    let by_name = Reference::parse(&format!("{OWNER}/intents")).unwrap();
    for reference in [&by_id, &by_name] {
        assert_eq!(db.adapter("acme", reference).await.unwrap_err().code(), "adapter_not_found");
    }
    db.share_adapter(OWNER, adapter.id, &["acme".to_string()]).await.unwrap();
    for reference in [&by_id, &by_name] {
        assert_eq!(db.adapter("acme", reference).await.unwrap(), adapter);
        assert_eq!(db.resolve_adapter("acme", reference).await.unwrap().owner, OWNER);
        assert_eq!(db.adapter("globex", reference).await.unwrap_err().code(), "adapter_not_found");
    }
    assert_eq!(db.shared_adapters("acme", ALL).await.unwrap(), std::slice::from_ref(&adapter));
    assert_eq!(db.shared_adapters("globex", ALL).await.unwrap(), []);
    assert_eq!(db.adapters("acme", ALL).await.unwrap(), [], "it does not belong to them");
    assert_eq!(db.delete_adapter("acme", adapter.id).await.unwrap_err().code(), "adapter_not_found");
    assert_eq!(db.activate_adapter("acme", adapter.id).await.unwrap_err().code(), "adapter_not_found");
    let error = db.share_adapter("acme", adapter.id, &["globex".to_string()]).await.unwrap_err();
    assert_eq!(error.code(), "adapter_not_found");
    assert_eq!(db.adapter_shares("acme", adapter.id).await.unwrap(), [] as [&str; 0]);
    db.share_adapter(OWNER, adapter.id, &["*".to_string()]).await.unwrap();
    assert_eq!(db.adapter("globex", &by_name).await.unwrap(), adapter);
}

async fn shares_end_with_the_adapter_or_by_replacement(db: &Database) {
    let adapter = db.add_adapter(new_adapter(Some("intents"), "ad")).await.unwrap();
    db.share_adapter(OWNER, adapter.id, &["acme".to_string(), "globex".to_string()]).await.unwrap();
    assert_eq!(db.adapter_shares(OWNER, adapter.id).await.unwrap(), ["acme", "globex"]);
    db.share_adapter(OWNER, adapter.id, &["globex".to_string()]).await.unwrap();
    assert_eq!(db.adapter_shares(OWNER, adapter.id).await.unwrap(), ["globex"]);
    assert!(db.adapter("acme", &Reference::Id(adapter.id)).await.is_err());
    db.delete_adapter(OWNER, adapter.id).await.unwrap();
    assert!(db.adapter("globex", &Reference::Id(adapter.id)).await.is_err());
    assert_eq!(db.shared_adapters("globex", ALL).await.unwrap(), []);
}

async fn audit_entries_are_filtered_and_paged(db: &Database) {
    let entry = |owner: Option<&str>, action: &str| NewAuditEntry {
        owner: owner.map(str::to_string),
        credential: Some("key:1".to_string()),
        action: action.to_string(),
        object: Some("/jobs/1".to_string()),
        status: 202,
        client_address: Some("192.0.2.7".to_string()),
        request_id: "request".to_string(),
    };
    for (owner, action) in [(Some("acme"), "create_job"), (Some("globex"), "create_job"), (None, "delete_job")] {
        db.add_audit_entry(entry(owner, action)).await.unwrap();
        db.advance_clock(Duration::from_millis(10)).await.unwrap();
    }
    let all = db.audit_entries(&AuditFilter::default(), ALL).await.unwrap();
    let actions: Vec<_> = all.iter().map(|entry| (entry.owner.as_deref(), entry.action.as_str())).collect();
    assert_eq!(actions, [(None, "delete_job"), (Some("globex"), "create_job"), (Some("acme"), "create_job")]);
    assert_eq!((all[2].status, all[2].client_address.as_deref()), (202, Some("192.0.2.7")));
    let of = |owner: Option<&str>, action: Option<&str>| AuditFilter {
        owner: owner.map(str::to_string),
        action: action.map(str::to_string),
        ..AuditFilter::default()
    };
    assert_eq!(db.audit_entries(&of(Some("acme"), None), ALL).await.unwrap(), all[2..]);
    assert_eq!(db.audit_entries(&of(None, Some("create_job")), ALL).await.unwrap(), all[1..]);
    let since = AuditFilter { since: Some(all[1].created_at), ..AuditFilter::default() };
    assert_eq!(db.audit_entries(&since, ALL).await.unwrap(), all[..2]);
    let until = AuditFilter { until: Some(all[1].created_at), ..AuditFilter::default() };
    assert_eq!(db.audit_entries(&until, ALL).await.unwrap(), all[1..]);
    let page = espalier::store::PageRequest { limit: 1, after: Some(all[0].id) };
    assert_eq!(db.audit_entries(&AuditFilter::default(), page).await.unwrap(), all[1..2]);
}

async fn usage_is_added_to_the_day(db: &Database) {
    let counts = UsageCounts { requests: 1, input_tokens: 5, output_tokens: 2 };
    let increment =
        |owner: &str, adapter: &str| UsageIncrement { owner: owner.to_string(), adapter: adapter.to_string(), counts };
    db.add_usage(&[increment("acme", "intents"), increment("acme", ""), increment("globex", "")]).await.unwrap();
    db.add_usage(&[increment("acme", "intents")]).await.unwrap();
    let today = db.now().await.unwrap().date_naive();
    let rows = db.usage(Some("acme"), today, today).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[1].adapter.as_str(), rows[1].day), ("intents", today));
    assert_eq!(rows[1].counts, UsageCounts { requests: 2, input_tokens: 10, output_tokens: 4 });
    assert_eq!(db.usage(None, today, today).await.unwrap().len(), 3);
    db.advance_clock(Duration::from_secs(86_400)).await.unwrap();
    db.add_usage(&[increment("acme", "intents")]).await.unwrap();
    let tomorrow = today + Days::new(1);
    assert_eq!(db.usage(Some("acme"), today, tomorrow).await.unwrap().len(), 3);
    assert_eq!(db.usage(Some("acme"), tomorrow, tomorrow).await.unwrap().len(), 1);
}
