//! Errors of the store and their texts, equal on both databases.

use super::model::{JobError, Reference, RequestedAction, Status};
use espalier_core::error::{Error, Problem, Result};
use std::time::Duration;
use uuid::Uuid;

/// `Retry-After` of a full queue. A job takes minutes.
const QUEUE_FULL_RETRY_AFTER: Duration = Duration::from_secs(30);

/// `Retry-After` of the deletion of an owner while workers stop its running jobs.
const JOBS_RUNNING_RETRY_AFTER: Duration = Duration::from_secs(5);

pub fn dataset_not_found(id: Uuid) -> Error {
    Error::not_found("dataset_not_found", format!("there is no dataset {id}; GET /datasets lists what there is"))
}

pub fn job_not_found(id: Uuid) -> Error {
    Error::not_found("job_not_found", format!("there is no job {id}; GET /jobs lists what there is"))
}

pub fn adapter_not_found(reference: &Reference) -> Error {
    let reason = match reference {
        Reference::Id(id) => format!("there is no adapter with the id {id}"),
        Reference::Name(name) => format!("there is no adapter with the name \"{name}\""),
        Reference::Version(name, version_prefix) => {
            format!("no version of \"{name}\" begins with {version_prefix}")
        }
        Reference::OfOwner(owner, _) => format!("the owner \"{owner}\" shares no such adapter with you"),
    };
    Error::not_found("adapter_not_found", format!("{reason}; GET /adapters lists what there is"))
}

pub fn ambiguous_version(name: &str, version_prefix: &str) -> Error {
    let detail = format!("more than one version of \"{name}\" begins with {version_prefix}: give more digits");
    Error::invalid("ambiguous_version", detail)
}

pub fn dataset_gone(id: Uuid) -> Error {
    Error::conflict("dataset_gone", format!("the dataset {id} does not exist (any more): send it again"))
}

pub fn dataset_in_use(id: Uuid, job: Uuid) -> Error {
    let detail = format!("the job {job} still needs the dataset {id}: cancel the job, or wait until it is over");
    Error::conflict("dataset_in_use", detail)
}

pub fn adapter_gone(version: &str) -> Error {
    let detail = format!("the adapter of the version {version}, which the job starts from, does not exist any more");
    Error::conflict("adapter_gone", detail)
}

pub fn adapter_in_use(id: Uuid, job: Uuid) -> Error {
    let detail = format!("the job {job} starts from the adapter {id}: cancel the job, or wait until it is over");
    Error::conflict("adapter_in_use", detail)
}

pub fn adapter_without_name(id: Uuid) -> Error {
    let detail = format!("the adapter {id} has no name that could refer to it: use its id");
    Error::conflict("adapter_without_name", detail)
}

pub fn key_not_found(id: Uuid) -> Error {
    Error::not_found("key_not_found", format!("there is no key {id}; GET /keys lists what there is"))
}

pub fn key_revoked(id: Uuid) -> Error {
    Error::conflict("key_revoked", format!("the key {id} is revoked or has expired: create a new one"))
}

/// A limit of an owner on what it stores or queues. Waiting does not help by itself.
pub fn quota_exceeded(code: &'static str, detail: String) -> Error {
    Error::QuotaExceeded(Problem::new(code, detail))
}

pub fn queue_full(max_queued: u64) -> Error {
    let detail = format!("{max_queued} jobs are queued already, which is the limit: try again when one has started");
    Error::busy("queue_full", detail, QUEUE_FULL_RETRY_AFTER)
}

pub fn job_exists(id: Uuid) -> Error {
    Error::conflict("job_exists", format!("there is a job {id} already: every job needs an id of its own"))
}

pub fn adapter_exists(id: Uuid) -> Error {
    Error::conflict("adapter_exists", format!("there is an adapter {id} already: every adapter needs an id of its own"))
}

pub fn webhook_not_found(id: Uuid) -> Error {
    Error::not_found("webhook_not_found", format!("there is no webhook {id}: GET /webhooks lists them"))
}

pub fn too_many_webhooks(limit: u64) -> Error {
    let detail =
        format!("there are {limit} webhooks already, as many as an owner may have (--max-webhooks): delete one");
    Error::conflict("too_many_webhooks", detail)
}

pub fn webhook_disabled(id: Uuid) -> Error {
    let detail =
        format!("the webhook {id} is disabled, because its endpoint failed: enable it with POST /webhooks/{id}/enable");
    Error::conflict("webhook_disabled", detail)
}

pub fn delivery_not_found(id: Uuid) -> Error {
    Error::not_found(
        "delivery_not_found",
        format!("there is no delivery {id} of this webhook: its deliveries list them"),
    )
}

pub fn delivery_pending(id: Uuid) -> Error {
    Error::conflict("delivery_pending", format!("the delivery {id} has not ended: it is sent without a request"))
}

pub fn job_over(id: Uuid, status: Status) -> Error {
    let detail = format!("the job {id} is over ({}): there is nothing left to cancel", status.as_str());
    Error::conflict("job_over", detail)
}

pub fn job_not_active(id: Uuid, status: Status, requested_action: Option<RequestedAction>) -> Error {
    let detail = format!(
        "the job {id} {}: only a queued or running one can be paused",
        describe_status(status, requested_action)
    );
    Error::conflict("job_not_active", detail)
}

pub fn job_not_paused(id: Uuid, status: Status, requested_action: Option<RequestedAction>) -> Error {
    let detail =
        format!("the job {id} {}: only a paused one can be resumed", describe_status(status, requested_action));
    Error::conflict("job_not_paused", detail)
}

pub fn lease_lost(job: Uuid) -> Error {
    Error::conflict(
        "lease_lost",
        format!("the lease on the job {job} is lost: another worker has claimed the job, or it is over"),
    )
}

pub fn job_not_failed(id: Uuid, status: Status) -> Error {
    let detail = format!("the job {id} is {}: only a failed one can be retried", status.as_str());
    Error::conflict("job_not_failed", detail)
}

pub fn job_active(id: Uuid, status: Status) -> Error {
    let detail = format!("the job {id} is {}: cancel it before you delete it", status.as_str());
    Error::conflict("job_active", detail)
}

/// Job error after `attempts` consecutive internal errors, the last of which is `last`.
pub fn attempts_exhausted(attempts: u32, last: &JobError) -> JobError {
    JobError {
        code: "attempts_exhausted".to_string(),
        detail: format!(
            "{attempts} attempts in a row ended in an internal error without a new checkpoint, the last with: {}. Look into \
             the server's log; POST /jobs/{{id}}/retry goes on from the last checkpoint",
            last.detail
        ),
    }
}

/// Job error after the process of `deaths` consecutive attempts ended.
pub fn processes_died(deaths: u32) -> JobError {
    JobError {
        code: "attempts_exhausted".to_string(),
        detail: format!(
            "{deaths} attempts in a row ended without a new checkpoint because the server's process ended: it was killed or \
             restarted, or it ran out of memory. If memory was short, submit the job again with a smaller batch_size or \
             max_length; otherwise POST /jobs/{{id}}/retry goes on from the last checkpoint"
        ),
    }
}

pub fn dataset_gone_for_job(id: Uuid) -> JobError {
    JobError {
        code: "dataset_gone".to_string(),
        detail: format!("the dataset {id} of this job does not exist any more: send it again with a new job"),
    }
}

pub fn owner_being_deleted(owner: &str) -> Error {
    let detail = format!("everything of the owner \"{owner}\" is being deleted: try again when that is done");
    Error::conflict("owner_being_deleted", detail)
}

pub fn owner_jobs_running(owner: &str) -> Error {
    let detail = format!(
        "jobs of the owner \"{owner}\" are cancelled but have not stopped yet, so that nothing is deleted: send it again"
    );
    Error::busy("owner_jobs_running", detail, JOBS_RUNNING_RETRY_AFTER)
}

pub fn nul_character(field: &str) -> Error {
    let detail = format!("{field} holds the character U+0000, which cannot be stored: remove it");
    Error::invalid("nul_character", detail)
}

pub fn unknown_cursor(after: Uuid) -> Error {
    let detail = format!("after={after} is not the id of a row of this list: start again without it");
    Error::invalid("unknown_after", detail)
}

/// Converts `NotFound` of a deleted row into `None`.
pub fn none_if_not_found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(row) => Ok(Some(row)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe_status(status: Status, requested_action: Option<RequestedAction>) -> String {
    match (status, requested_action) {
        (Status::Running, Some(RequestedAction::Cancel)) => "is being cancelled".to_string(),
        _ => format!("is {}", status.as_str()),
    }
}
