//! Statements on adapters that their owner shares with other owners.

use super::adapters::{self, select_adapters, visible_to_second_parameter};
use super::connection::SqlStore;
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::pagination::Cursor;
use super::row_codec::{self, DecodeRow};
use crate::store::changes::Change;
use crate::store::errors;
use crate::store::model::{Adapter, PageRequest};
use espalier_core::error::Result;
use uuid::Uuid;

pub async fn list_grantees<D: Dialect>(store: &SqlStore<D>, owner: &str, adapter: Uuid) -> Result<Vec<String>> {
    let sql = "select grantee from adapter_shares where adapter_id = $1
                   and exists (select 1 from adapters where id = $1 and owner = $2) order by grantee";
    let rows = store.fetch_all(sql, params![adapter, owner]).await.context("reading the shares of an adapter")?;
    rows.iter().map(|row| row.text("grantee")).collect()
}

pub async fn replace<D: Dialect>(store: &SqlStore<D>, owner: &str, adapter: Uuid, grantees: &[String]) -> Result<()> {
    let mut transaction = store.begin().await?;
    adapters::find_by_id(&mut transaction, owner, adapter).await?;
    let sql = "delete from adapter_shares where adapter_id = $1";
    transaction.execute(sql, params![adapter]).await.context("replacing the shares of an adapter")?;
    for grantee in grantees {
        let sql =
            "insert into adapter_shares (adapter_id, grantee, created_at) values ($1, $2, (select now from db_now))
                   on conflict (adapter_id, grantee) do nothing";
        transaction.execute(sql, params![adapter, grantee]).await.context("sharing an adapter")?;
    }
    transaction.record_change(Change::Adapters);
    transaction.commit().await?;
    Ok(())
}

/// Lists the adapters of other owners that are shared with an owner, newest first.
pub async fn list<D: Dialect>(store: &SqlStore<D>, owner: &str, page: PageRequest) -> Result<Vec<Adapter>> {
    let cursor = match page.after {
        None => Cursor::START,
        Some(id) => {
            let sql = concat!("select created_at from adapters where id = $1 and ", visible_to_second_parameter!());
            let row = store.fetch_optional(sql, params![id, owner]).await;
            let row = row.context("finding the adapter that a page begins after")?;
            Cursor { created_at: row.ok_or_else(|| errors::unknown_cursor(id))?.timestamp("created_at")?, id }
        }
    };
    let sql = select_adapters!(
        "where owner <> $1 and (created_at, id) < ($2, $3)
             and id in (select adapter_id from adapter_shares where grantee in ($1, '*'))
         order by created_at desc, id desc limit $4"
    );
    let params = params![owner, cursor.created_at, cursor.id, page.limit];
    let rows = store.fetch_all(sql, params).await.context("listing shared adapters")?;
    rows.iter().map(row_codec::decode_adapter).collect()
}
