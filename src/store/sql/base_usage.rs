//! Base models that an owner's adapters and unfinished jobs belong to.

use super::connection::SqlStore;
use super::database_error::Context;
use super::dialect::{Dialect, params};
use super::row_codec::DecodeRow;
use crate::store::model::BaseUsage;
use espalier_core::error::Result;

/// Adapters without a fingerprint, of plain PEFT folders, and jobs of versions that did not record one are not counted.
pub async fn of_owner<D: Dialect>(store: &SqlStore<D>, owner: &str) -> Result<Vec<BaseUsage>> {
    let sql = "select base, cast(sum(adapters) as bigint) as adapters, cast(sum(queued) as bigint) as queued,
                   cast(sum(running) as bigint) as running
               from (
                   select description ->> 'base' as base, 1 as adapters, 0 as queued, 0 as running
                   from adapters where owner = $1
                   union all
                   select base, 0, case when status = 'queued' then 1 else 0 end, case when status = 'running' then 1 else 0 end
                   from jobs where owner = $1 and status in ('queued', 'running')
               ) as rows
               where base is not null group by base order by base";
    let rows = store.fetch_all(sql, params![owner]).await.context("counting adapters and jobs by base model")?;
    rows.iter().map(decode).collect()
}

fn decode(row: &impl DecodeRow) -> Result<BaseUsage> {
    let count = |column| -> Result<u64> { Ok(u64::try_from(row.integer(column)?).unwrap_or_default()) };
    Ok(BaseUsage {
        fingerprint: row.text("base")?,
        adapters: count("adapters")?,
        queued_jobs: count("queued")?,
        running_jobs: count("running")?,
    })
}
