//! Statements on the audit log. Rows are inserted and never updated.

use super::connection::SqlStore;
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::pagination::Cursor;
use super::row_codec::{self, DecodeRow};
use crate::store::errors;
use crate::store::model::{AuditEntry, AuditFilter, NewAuditEntry, PageRequest};
use espalier_core::error::Result;
use uuid::Uuid;

pub async fn add<D: Dialect>(store: &SqlStore<D>, entry: &NewAuditEntry) -> Result<()> {
    let sql =
        "insert into audit_log (id, created_at, owner, credential, action, object, status, client_address, request_id)
               values ($1, (select now from db_now), $2, $3, $4, $5, $6, $7, $8)";
    let params = params![
        Uuid::now_v7(),
        &entry.owner,
        &entry.credential,
        &entry.action,
        &entry.object,
        u32::from(entry.status),
        &entry.client_address,
        &entry.request_id,
    ];
    let mut transaction = store.begin().await?;
    transaction.execute(sql, params).await.context("writing to the audit log")?;
    transaction.commit().await
}

pub async fn list<D: Dialect>(store: &SqlStore<D>, filter: &AuditFilter, page: PageRequest) -> Result<Vec<AuditEntry>> {
    let cursor = cursor(store, page).await?;
    // A filter that is null holds for every row.
    let sql = "select id, created_at, owner, credential, action, object, status, client_address, request_id
               from audit_log
               where (created_at, id) < ($1, $2)
                   and ($3 is null or owner = $3) and ($4 is null or action = $4)
                   and created_at >= $5 and created_at <= $6
               order by created_at desc, id desc limit $7";
    let since = filter.since.unwrap_or(chrono::DateTime::UNIX_EPOCH);
    let until = filter.until.unwrap_or(Cursor::START.created_at);
    let params = params![cursor.created_at, cursor.id, &filter.owner, &filter.action, since, until, page.limit];
    let rows = store.fetch_all(sql, params).await.context("reading the audit log")?;
    rows.iter().map(decode).collect()
}

async fn cursor<D: Dialect>(store: &SqlStore<D>, page: PageRequest) -> Result<Cursor> {
    let Some(id) = page.after else { return Ok(Cursor::START) };
    let row = store.fetch_optional("select created_at from audit_log where id = $1", params![id]).await;
    let row = row.context("finding the entry that a page begins after")?;
    Ok(Cursor { created_at: row.ok_or_else(|| errors::unknown_cursor(id))?.timestamp("created_at")?, id })
}

fn decode(row: &impl DecodeRow) -> Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.uuid("id")?,
        created_at: row.timestamp("created_at")?,
        owner: row.opt_text("owner")?,
        credential: row.opt_text("credential")?,
        action: row.text("action")?,
        object: row.opt_text("object")?,
        status: u16::try_from(row_codec::decode_u64(row, "status")?).context("reading the status of an audit entry")?,
        client_address: row.opt_text("client_address")?,
        request_id: row.text("request_id")?,
    })
}
