//! Datasets and adapters that the retention policy does not keep.

use super::connection::SqlStore;
use super::database_error::Context;
use super::dialect::{Dialect, Row, params};
use super::row_codec::{self, DecodeRow};
use crate::store::model::{DeletedKind, RetentionPolicy};
use espalier_core::error::Result;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A dataset or an adapter that the policy does not keep.
pub struct ExpiredFile {
    pub id: Uuid,
    pub owner: String,
    /// Hash or version.
    blob: String,
    pub bytes: u64,
    /// Rows that refer to the blob.
    references: u64,
}

/// Datasets that no unfinished job uses and that have not been used for a while.
pub async fn datasets<D: Dialect>(store: &SqlStore<D>, policy: &RetentionPolicy) -> Result<Vec<ExpiredFile>> {
    let Some(age) = policy.keep_datasets else { return Ok(Vec::new()) };
    let sql = "select id, owner, hash as blob, bytes,
                   (select count(*) from datasets as other where other.hash = datasets.hash) as blob_references
               from datasets
               where coalesce(last_used_at, created_at) < (select now from db_now) - $1
                   and id not in (select dataset_id from jobs where status in ('queued', 'paused', 'running'))
                   and id not in (select validation_dataset_id from jobs
                                  where status in ('queued', 'paused', 'running')
                                      and validation_dataset_id is not null)
               order by coalesce(last_used_at, created_at)";
    let rows = store.fetch_all(sql, params![age]).await.context("looking for unused datasets")?;
    rows.iter().map(decode::<D>).collect()
}

/// Adapters that the policy does not keep: older ones than the newest of their name, and those superseded for longer than the policy
/// allows. Adapters that their name points to, and those that an unfinished job starts from, are always kept.
pub async fn adapters<D: Dialect>(store: &SqlStore<D>, policy: &RetentionPolicy) -> Result<Vec<ExpiredFile>> {
    if policy.keep_versions.is_none() && policy.keep_superseded.is_none() {
        return Ok(Vec::new());
    }
    let sql = "select id, owner, version as blob, cast(description ->> 'bytes' as bigint) as bytes,
                   (select count(*) from adapters as other where other.version = ranked.version) as blob_references
               from (
                   select id, owner, version, description, coalesce(superseded_at, created_at) as superseded_at,
                       row_number() over (partition by owner, name order by created_at desc, id desc) as rank
                   from adapters where name is not null
               ) as ranked
               where (rank > $1 or ($2 and superseded_at < (select now from db_now) - $3))
                   and not exists (select 1 from adapter_names where adapter_id = ranked.id)
                   and not exists (select 1 from jobs
                                   where jobs.owner = ranked.owner and jobs.status in ('queued', 'paused', 'running')
                                       and jobs.spec -> 'from_adapter' ->> 'version' = ranked.version)
               order by superseded_at";
    let params = params![
        policy.keep_versions.unwrap_or(u32::MAX),
        policy.keep_superseded.is_some(),
        policy.keep_superseded.unwrap_or_default(),
    ];
    let rows = store.fetch_all(sql, params).await.context("looking for superseded adapters")?;
    rows.iter().map(decode::<D>).collect()
}

fn decode<D: Dialect>(row: &Row<D>) -> Result<ExpiredFile> {
    Ok(ExpiredFile {
        id: row.uuid("id")?,
        owner: row.text("owner")?,
        blob: row.text("blob")?,
        bytes: row_codec::decode_u64(row, "bytes")?,
        references: row_codec::decode_u64(row, "blob_references")?,
    })
}

/// Sums files of which all rows are deleted, and lists their blobs.
pub fn sum(files: Vec<ExpiredFile>) -> (DeletedKind, Vec<String>) {
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    let (mut sum, mut unreferenced) = (DeletedKind::default(), Vec::new());
    for file in files {
        let left = left.entry(file.blob.clone()).or_insert(file.references);
        *left = left.saturating_sub(1);
        sum.add(file.id, if *left == 0 { file.bytes } else { 0 });
        if *left == 0 {
            unreferenced.push(file.blob);
        }
    }
    (sum, unreferenced)
}
