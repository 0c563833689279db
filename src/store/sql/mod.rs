//! SQL implementation of [`Store`]: one set of statements for Postgres and SQLite.
//!
//! Each statement is a function. Each file contains the statements on one subject and the transactions made of them.
//! [`dialect::Dialect`] covers the differences between the databases; [`super::job_state_machine`] makes the decisions
//! that need no SQL.

pub mod connection;
pub mod dump;
pub mod postgres;
mod postgres_pooler;
pub mod sqlite;

mod access;
mod access_version;
mod adapter_names;
mod adapter_shares;
mod adapters;
mod api_keys;
mod audit;
mod base_usage;
mod batch;
mod blob_reservations;
mod claims;
mod database_error;
mod datasets;
mod deleted_owners;
mod dialect;
mod events;
mod expired_files;
mod idempotency;
mod jobs;
mod leases;
mod owner_deletion;
mod owners;
mod pagination;
mod retention;
mod row_codec;
mod turns;
mod usage;
mod webhook_deliveries;
mod webhook_store;
mod webhooks;

use super::interface::Store;
use super::job_state_machine;
use super::model::*;
use crate::store::changes::ChangeReceiver;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use connection::SqlStore;
use dialect::Dialect;
use espalier_core::error::Result;
use espalier_core::training::{MetricsRow, Progress};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
impl<D: Dialect> Store for SqlStore<D> {
    fn backend_name(&self) -> &'static str {
        D::NAME
    }

    fn changes(&self) -> ChangeReceiver {
        self.changes()
    }

    fn connections(&self) -> Connections {
        SqlStore::connections(self)
    }

    async fn check_write(&self) -> Result<()> {
        SqlStore::check_write(self).await
    }

    async fn now(&self) -> Result<DateTime<Utc>> {
        SqlStore::now(self).await
    }

    async fn advance_clock(&self, offset: Duration) -> Result<()> {
        SqlStore::advance_clock(self, offset).await
    }

    async fn add_dataset(&self, dataset: NewDataset) -> Result<Dataset> {
        datasets::add(self, &dataset).await
    }

    async fn dataset(&self, owner: &str, id: Uuid) -> Result<Dataset> {
        datasets::read(self, owner, id).await
    }

    async fn datasets(&self, owner: &str, page: PageRequest) -> Result<Vec<Dataset>> {
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

    async fn jobs(&self, owner: &str, status: Option<Status>, page: PageRequest) -> Result<Vec<Job>> {
        jobs::list(self, owner, status, page).await
    }

    async fn running_jobs(&self, limit: u32) -> Result<Vec<Job>> {
        jobs::list_running(self, limit).await
    }

    async fn queue_position(&self, id: Uuid) -> Result<u64> {
        turns::position(self, id).await
    }

    async fn count_jobs_by_status(&self) -> Result<Vec<(Status, u64)>> {
        jobs::count_by_status(self).await
    }

    async fn base_usage(&self, owner: &str) -> Result<Vec<BaseUsage>> {
        base_usage::of_owner(self, owner).await
    }

    async fn cancel_job(&self, owner: &str, id: Uuid) -> Result<Job> {
        jobs::apply_owner_action(self, owner, id, job_state_machine::cancel).await
    }

    async fn pause_job(&self, owner: &str, id: Uuid) -> Result<Job> {
        jobs::apply_owner_action(self, owner, id, job_state_machine::pause).await
    }

    async fn resume_job(&self, owner: &str, id: Uuid) -> Result<Job> {
        jobs::apply_owner_action(self, owner, id, job_state_machine::resume).await
    }

    async fn retry_job(&self, owner: &str, id: Uuid, max_queued: u64) -> Result<Job> {
        jobs::retry(self, owner, id, max_queued).await
    }

    async fn claim(&self, worker: &WorkerId, rules: &ClaimRules) -> Result<Option<ClaimedJob>> {
        claims::claim(self, worker, rules).await
    }

    async fn heartbeat(
        &self,
        lease: &Lease,
        lease_duration: Duration,
        progress: Option<&Progress>,
    ) -> Result<Option<RequestedAction>> {
        leases::heartbeat(self, lease, lease_duration, progress).await
    }

    async fn record_metrics(&self, lease: &Lease, rows: &[MetricsRow]) -> Result<()> {
        leases::record_metrics(self, lease, rows).await
    }

    async fn record_checkpoint(&self, lease: &Lease, step: u64) -> Result<()> {
        leases::record_checkpoint(self, lease, step).await
    }

    async fn requeue(&self, lease: &Lease) -> Result<()> {
        leases::end_lease(self, lease, job_state_machine::requeue).await
    }

    async fn add_slot_time(&self, owner: &str, time: Duration) -> Result<()> {
        turns::add_slot_time(self, owner, time).await
    }

    async fn is_turn_of_another_owner(
        &self,
        job: Uuid,
        time_slice: Duration,
        max_running: Option<u64>,
    ) -> Result<bool> {
        claims::is_turn_of_another_owner(self, job, time_slice, max_running).await
    }

    async fn preempt(&self, lease: &Lease) -> Result<()> {
        leases::end_lease(self, lease, job_state_machine::preempt).await
    }

    async fn record_failed_attempt(
        &self,
        lease: &Lease,
        fault: AttemptFault,
        error: &JobError,
        max_attempts: u32,
    ) -> Result<()> {
        let decide = |job: &_| job_state_machine::record_failed_attempt(job, fault, error, max_attempts);
        leases::end_lease(self, lease, decide).await
    }

    async fn report_lost_lease(&self, lease: &Lease) -> Result<()> {
        leases::report_lost_lease(self, lease).await
    }

    async fn complete_requested_action(&self, lease: &Lease, action: RequestedAction) -> Result<()> {
        leases::end_lease(self, lease, |job| job_state_machine::complete_requested_action(job, action)).await
    }

    async fn fail_job(&self, lease: &Lease, error: &JobError) -> Result<()> {
        leases::end_lease(self, lease, |job| job.fail(error)).await
    }

    async fn publish(&self, lease: &Lease, adapter: NewAdapter, metrics: &Value) -> Result<Adapter> {
        leases::publish(self, lease, &adapter, metrics).await
    }

    async fn expire_leases_of_instance(&self, instance: Uuid) -> Result<u64> {
        leases::expire_leases_of_instance(self, instance).await
    }

    async fn events(&self, job: Uuid, after: i64, limit: u32) -> Result<Vec<Event>> {
        events::list(self, job, after, limit).await
    }

    async fn add_adapter(&self, adapter: NewAdapter) -> Result<Adapter> {
        adapters::add(self, &adapter).await
    }

    async fn resolve_adapter(&self, owner: &str, reference: &Reference) -> Result<ResolvedAdapter> {
        adapters::resolve(self, owner, reference).await
    }

    fn adapter_changes(&self) -> u64 {
        SqlStore::adapter_changes(self)
    }

    async fn adapter(&self, owner: &str, reference: &Reference) -> Result<Adapter> {
        adapters::read(self, owner, reference).await
    }

    async fn adapter_of_version(&self, owner: &str, version: &str) -> Result<Option<Adapter>> {
        adapters::find_by_version(self, owner, version).await
    }

    async fn adapters(&self, owner: &str, page: PageRequest) -> Result<Vec<Adapter>> {
        adapters::list(self, owner, page).await
    }

    async fn activate_adapter(&self, owner: &str, id: Uuid) -> Result<Adapter> {
        adapters::activate(self, owner, id).await
    }

    async fn delete_adapter(&self, owner: &str, id: Uuid) -> Result<Option<String>> {
        adapters::delete(self, owner, id).await
    }

    async fn referenced_adapter_versions(&self) -> Result<Vec<String>> {
        adapters::versions(self).await
    }

    async fn referenced_dataset_hashes(&self) -> Result<Vec<String>> {
        datasets::hashes(self).await
    }

    async fn resumable_jobs(&self, keep_checkpoints: Duration) -> Result<Vec<Uuid>> {
        jobs::resumable_ids(self, keep_checkpoints).await
    }

    async fn delete_job(&self, owner: &str, id: Uuid) -> Result<()> {
        retention::delete_job(self, owner, id).await
    }

    async fn delete_old_rows(&self, policy: &RetentionPolicy) -> Result<DeletedRows> {
        retention::delete_old_rows(self, policy).await
    }

    async fn find_old_rows(&self, policy: &RetentionPolicy) -> Result<DeletedRows> {
        retention::find_old_rows(self, policy).await
    }

    async fn database_bytes(&self) -> Result<u64> {
        SqlStore::database_bytes(self).await
    }

    async fn reclaim_space(&self) -> Result<()> {
        SqlStore::reclaim_space(self).await
    }

    async fn begin_owner_deletion(&self, owner: &str) -> Result<()> {
        deleted_owners::begin(self, owner).await
    }

    async fn unfinished_owner_deletions(&self, age: Duration) -> Result<Vec<String>> {
        deleted_owners::unfinished(self, age).await
    }

    async fn cancel_owner_jobs(&self, owner: &str) -> Result<Vec<Uuid>> {
        owner_deletion::cancel_jobs(self, owner).await
    }

    async fn find_owner_rows(&self, owner: &str) -> Result<DeletedOwnerRows> {
        owner_deletion::find_rows(self, owner).await
    }

    async fn delete_owner_rows(&self, owner: &str) -> Result<DeletedOwnerRows> {
        owner_deletion::delete_rows(self, owner).await
    }

    async fn finish_owner_deletion(&self, owner: &str) -> Result<()> {
        deleted_owners::finish(self, owner).await
    }
}
