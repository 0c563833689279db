//! Statements about jobs, and what their owners do with them.

use super::Postgres;
use super::connection::{Transaction, commit};
use super::{adapters, datasets, events, lists};
use crate::store::columns::{self, Columns};
use crate::store::model::{Job, NewJob, Page, Status, Wish};
use crate::store::moves::{self, Action, Held, Move};
use crate::store::problems;
use crate::store::values::{self, JobJson};
use espalier_core::error::{Context, Result};
use uuid::Uuid;

/// The columns of a [`Job`], and where they come from.
macro_rules! select_jobs {
    ($rest:literal) => {
        concat!(
            "select id, owner, name, status, wish, dataset_id, validation_dataset_id, options, spec, progress, metrics,
             adapter_id, error, attempt, created_at, started_at, finished_at from jobs ",
            $rest
        )
    };
}

pub async fn add(store: &Postgres, job: &NewJob, max_queued: u64) -> Result<Job> {
    let json = JobJson::new(job)?;
    let mut transaction = store.begin().await?;
    for id in std::iter::once(job.dataset_id).chain(job.validation_dataset_id) {
        datasets::share(&mut transaction, &job.owner, id).await?.ok_or_else(|| problems::dataset_gone(id))?;
    }
    if let Some(from) = job.spec.from_adapter() {
        let kept = adapters::share_version(&mut transaction, &job.owner, &from.version).await?;
        kept.ok_or_else(|| problems::adapter_gone(&from.version))?;
    }
    one_at_a_time(&mut transaction, &job.owner).await?;
    if queued_of(&mut transaction, &job.owner).await? >= max_queued {
        return Err(problems::queue_full(max_queued));
    }
    insert(&mut transaction, job, &json).await?;
    events::add_status(&mut transaction, job.id, 1, &moves::queued_event()).await?;
    let added = by_id(&mut transaction, job.id).await?;
    commit(transaction).await?;
    Ok(added)
}

/// What its owner does with a job: `decide` says what becomes of it.
pub async fn act(store: &Postgres, owner: &str, id: Uuid, decide: fn(&Held) -> Result<Action>) -> Result<Job> {
    let mut transaction = store.begin().await?;
    let held = hold(&mut transaction, owner, id).await?.ok_or_else(|| problems::no_job(id))?;
    match decide(&held)? {
        Action::Move(to) => move_to(&mut transaction, &held, &to).await?,
        Action::Wish(wish) => set_wish(&mut transaction, &held, wish).await?,
    }
    let job = by_id(&mut transaction, id).await?;
    commit(transaction).await?;
    Ok(job)
}

/// Changes the status of a job that this transaction holds, and writes the event.
pub async fn move_to(transaction: &mut Transaction, held: &Held, to: &Move) -> Result<()> {
    let sequence = update_status(transaction, held, to).await?.ok_or_else(|| problems::lease_lost(held.id))?;
    events::add_status(transaction, held.id, sequence, &moves::status_event(held.attempt, to)).await
}

async fn insert(transaction: &mut Transaction, job: &NewJob, json: &JobJson) -> Result<()> {
    let outcome = sqlx::query(
        "insert into jobs (id, owner, name, status, dataset_id, validation_dataset_id, options, spec, last_sequence, created_at)
         values ($1, $2, $3, 'queued', $4, $5, $6, $7, 1, (select now from present))",
    )
    .bind(job.id)
    .bind(&job.owner)
    .bind(&job.name)
    .bind(job.dataset_id)
    .bind(job.validation_dataset_id)
    .bind(&json.options)
    .bind(&json.spec)
    .execute(&mut **transaction)
    .await;
    match outcome {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(problems::job_exists(job.id)),
        other => other.map(|_| ()).context("adding a job"),
    }
}

/// Two of an owner's jobs must not take the last place in the queue at the same time.
async fn one_at_a_time(transaction: &mut Transaction, owner: &str) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(owner)
        .execute(&mut **transaction)
        .await
        .context("waiting for another job of the same owner to be added")?;
    Ok(())
}

async fn queued_of(transaction: &mut Transaction, owner: &str) -> Result<u64> {
    let row = sqlx::query("select count(*) as jobs from jobs where status = 'queued' and owner = $1")
        .bind(owner)
        .fetch_one(&mut **transaction)
        .await
        .context("counting queued jobs")?;
    columns::count(&row, "jobs")
}

pub async fn by_id(transaction: &mut Transaction, id: Uuid) -> Result<Job> {
    let row = sqlx::query(select_jobs!("where id = $1"))
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await
        .context("reading a job")?;
    columns::job(&row.ok_or_else(|| problems::no_job(id))?)
}

pub async fn read(store: &Postgres, owner: &str, id: Uuid) -> Result<Job> {
    let row = sqlx::query(select_jobs!("where id = $1 and owner = $2"))
        .bind(id)
        .bind(owner)
        .fetch_optional(&store.pool)
        .await
        .context("reading a job")?;
    columns::job(&row.ok_or_else(|| problems::no_job(id))?)
}

pub async fn list(store: &Postgres, owner: &str, status: Option<Status>, page: Page) -> Result<Vec<Job>> {
    let boundary = lists::boundary(store, owner, page).await?;
    let rows = sqlx::query(select_jobs!(
        "where owner = $1 and ($2::text is null or status = $2) and (created_at, id) < ($3, $4)
         order by created_at desc, id desc limit $5"
    ))
    .bind(owner)
    .bind(status.map(Status::name))
    .bind(boundary.created_at)
    .bind(boundary.id)
    .bind(i64::from(page.limit))
    .fetch_all(&store.pool)
    .await
    .context("listing jobs")?;
    rows.iter().map(columns::job).collect()
}

pub async fn counts(store: &Postgres) -> Result<Vec<(Status, u64)>> {
    let rows = sqlx::query("select status, count(*) as jobs from jobs group by status")
        .fetch_all(&store.pool)
        .await
        .context("counting jobs")?;
    columns::job_counts(&rows)
}

pub async fn open(store: &Postgres) -> Result<Vec<Uuid>> {
    let rows = sqlx::query("select id from jobs where status in ('queued', 'paused', 'running')")
        .fetch_all(&store.pool)
        .await
        .context("listing the jobs that are not over")?;
    rows.iter().map(|row| row.id("id")).collect()
}

async fn hold(transaction: &mut Transaction, owner: &str, id: Uuid) -> Result<Option<Held>> {
    let row = sqlx::query(
        "select id, lease_epoch, status, wish, attempt, fruitless from jobs where id = $1 and owner = $2 for update",
    )
    .bind(id)
    .bind(owner)
    .fetch_optional(&mut **transaction)
    .await
    .context("reading the state of a job")?;
    row.as_ref().map(columns::held).transpose()
}

async fn set_wish(transaction: &mut Transaction, held: &Held, wish: Option<Wish>) -> Result<()> {
    sqlx::query("update jobs set wish = $3 where id = $1 and lease_epoch = $2 and status = 'running'")
        .bind(held.id)
        .bind(held.epoch)
        .bind(wish.map(Wish::name))
        .execute(&mut **transaction)
        .await
        .context("writing what is wished of a job")?;
    Ok(())
}

/// Answers the sequence of the event that tells of it; `None` where the row is not as it was held.
async fn update_status(transaction: &mut Transaction, held: &Held, to: &Move) -> Result<Option<i64>> {
    let row = sqlx::query(
        "update jobs set status = $4, wish = null, error = $5, metrics = $6, adapter_id = $7, fruitless = $8,
             finished_at = case when $9 then (select now from present) end,
             lease_expires_at = null, worker_instance = null, worker_process = null, last_sequence = last_sequence + 1
         where id = $1 and lease_epoch = $2 and status = $3
         returning last_sequence",
    )
    .bind(held.id)
    .bind(held.epoch)
    .bind(held.status.name())
    .bind(to.status.name())
    .bind(values::error(to.error.as_ref())?)
    .bind(&to.metrics)
    .bind(to.adapter_id)
    .bind(i64::from(to.fruitless))
    .bind(to.status.is_over())
    .fetch_optional(&mut **transaction)
    .await
    .context("changing the status of a job")?;
    row.map(|row| row.integer("last_sequence")).transpose()
}
