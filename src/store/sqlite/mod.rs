//! The store in an SQLite file: the embedded default.
//!
//! A statement is a function; each file holds those about its subject, and the transactions made of them. What can be
//! decided without SQL is in `store::moves`.

mod adapters;
mod connection;
mod datasets;
mod events;
mod jobs;
mod lease;
mod lists;
mod names;
mod queue;
mod time;

pub use connection::Sqlite;

use super::model::*;
use super::{Store, moves};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use espalier_core::error::Result;
use espalier_core::training::{Progress, Row};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
impl Store for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn ping(&self) -> Result<()> {
        time::now(self).await.map(|_| ())
    }

    async fn now(&self) -> Result<DateTime<Utc>> {
        time::now(self).await
    }

    async fn advance_clock(&self, by: Duration) -> Result<()> {
        time::advance(self, by).await
    }

    async fn add_dataset(&self, dataset: NewDataset) -> Result<Dataset> {
        datasets::add(self, &dataset).await
    }

    async fn dataset(&self, owner: &str, id: Uuid) -> Result<Dataset> {
        datasets::read(self, owner, id).await
    }

    async fn datasets(&self, owner: &str, page: Page) -> Result<Vec<Dataset>> {
        datasets::list(self, owner, page).await
    }

    async fn delete_dataset(&self, owner: &str, id: Uuid) -> Result<Option<String>> {
        datasets::delete(self, owner, id).await
    }

    async fn add_job(&self, job: NewJob, max_queued: u64) -> Result<Job> {
        jobs::add(self, &job, max_queued).await
    }

    async fn job(&self, owner: &str, id: Uuid) -> Result<Job> {
        jobs::read(self, owner, id).await
    }

    async fn jobs(&self, owner: &str, status: Option<Status>, page: Page) -> Result<Vec<Job>> {
        jobs::list(self, owner, status, page).await
    }

    async fn queue_place(&self, id: Uuid) -> Result<u64> {
        queue::place(self, id).await
    }

    async fn job_counts(&self) -> Result<Vec<(Status, u64)>> {
        jobs::counts(self).await
    }

    async fn cancel_job(&self, owner: &str, id: Uuid) -> Result<Job> {
        jobs::act(self, owner, id, moves::cancel).await
    }

    async fn pause_job(&self, owner: &str, id: Uuid) -> Result<Job> {
        jobs::act(self, owner, id, moves::pause).await
    }

    async fn resume_job(&self, owner: &str, id: Uuid) -> Result<Job> {
        jobs::act(self, owner, id, moves::resume).await
    }

    async fn claim(&self, worker: &Worker, lease: Duration, max_attempts: u32) -> Result<Option<Claim>> {
        queue::claim(self, worker, lease, max_attempts).await
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration, progress: Option<&Progress>) -> Result<Option<Wish>> {
        lease::heartbeat(self, lease, extend, progress).await
    }

    async fn record_rows(&self, lease: &Lease, rows: &[Row]) -> Result<()> {
        lease::record_rows(self, lease, rows).await
    }

    async fn checkpointed(&self, lease: &Lease, step: u64) -> Result<()> {
        lease::checkpointed(self, lease, step).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        lease::let_go(self, lease, moves::released).await
    }

    async fn give_up(&self, lease: &Lease, error: &JobError) -> Result<()> {
        lease::let_go(self, lease, |held| moves::gave_up(held, error)).await
    }

    async fn stopped(&self, lease: &Lease, wish: Wish) -> Result<()> {
        lease::let_go(self, lease, |job| moves::stopped(job, wish)).await
    }

    async fn fail(&self, lease: &Lease, error: &JobError) -> Result<()> {
        lease::let_go(self, lease, |job| job.fail(error)).await
    }

    async fn publish(&self, lease: &Lease, adapter: NewAdapter, metrics: &Value) -> Result<Adapter> {
        lease::publish(self, lease, &adapter, metrics).await
    }

    async fn take_back(&self, instance: Uuid) -> Result<u64> {
        queue::take_back(self, instance).await
    }

    async fn events(&self, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>> {
        events::list(self, job, after, limit).await
    }

    async fn add_adapter(&self, adapter: NewAdapter) -> Result<Adapter> {
        adapters::add(self, &adapter).await
    }

    async fn adapter(&self, owner: &str, reference: &Reference) -> Result<Adapter> {
        adapters::read(self, owner, reference).await
    }

    async fn adapters(&self, owner: &str, page: Page) -> Result<Vec<Adapter>> {
        adapters::list(self, owner, page).await
    }

    async fn delete_adapter(&self, owner: &str, id: Uuid) -> Result<Option<String>> {
        adapters::delete(self, owner, id).await
    }

    async fn adapter_versions(&self) -> Result<Vec<String>> {
        adapters::versions(self).await
    }

    async fn dataset_hashes(&self) -> Result<Vec<String>> {
        datasets::hashes(self).await
    }

    async fn open_jobs(&self) -> Result<Vec<Uuid>> {
        jobs::open(self).await
    }
}
