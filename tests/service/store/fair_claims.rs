//! Claims with several owners: turns, priorities, and positions in the queue that tell the order of the claims.

use super::helpers::*;
use crate::support::database::Database;
use crate::support::samples::*;
use espalier::store::{AttemptFault, ClaimRules, Job, NewDataset, NewJob, OwnerLimits, Platform, Store};
use std::collections::HashSet;
use std::time::Duration;

on_both_databases!(
    owners_take_turns,
    the_owner_with_the_fewest_running_jobs_is_next,
    priority_orders_the_jobs_of_one_owner_only,
    positions_in_the_queue_are_the_order_of_the_claims,
    an_interrupted_job_goes_on_before_others_start,
    an_expired_lease_is_resumed_before_others_start,
    a_job_that_waits_after_a_failure_gives_its_turn_away,
    concurrent_claims_take_turns,
    a_worker_claims_the_jobs_of_its_platform,
    an_owner_runs_no_more_jobs_than_its_limit,
    a_running_job_is_preempted_when_an_owner_with_less_slot_time_waits,
    the_owner_with_the_least_slot_time_is_next_among_owners_with_as_many_running_jobs,
    a_preempted_job_waits_for_its_owners_next_turn,
);

/// Adds a job of an owner.
async fn add(store: &dyn Store, owner: &str, priority: i32) -> Job {
    let dataset = store.add_dataset(NewDataset { owner: owner.to_string(), ..new_dataset("da7a") }).await.unwrap();
    let job = NewJob { owner: owner.to_string(), priority, ..new_job(dataset.id) };
    store.add_job(job, MAX_QUEUED).await.unwrap()
}

/// Adds a job for each owner.
async fn add_all(store: &dyn Store, owners: &[&str]) {
    for owner in owners {
        add(store, owner, 0).await;
    }
}

/// Claims all jobs and returns their owners in order.
async fn claimed_owners(store: &dyn Store) -> Vec<String> {
    let mut owners = Vec::new();
    while let Some(claim) = claim(store).await {
        owners.push(claim.job.owner);
    }
    owners
}

async fn owners_take_turns(db: &Database) {
    add_all(&**db, &["a", "a", "a", "a", "b", "b", "c"]).await;
    assert_eq!(claimed_owners(&**db).await, ["a", "b", "c", "a", "b", "a", "a"]);
}

async fn the_owner_with_the_fewest_running_jobs_is_next(db: &Database) {
    add_all(&**db, &["a", "a", "a"]).await;
    assert_eq!(claimed_owners(&**db).await, ["a", "a", "a"]);
    add_all(&**db, &["a", "b", "b", "b", "b"]).await;
    assert_eq!(claimed_owners(&**db).await, ["b", "b", "b", "a", "b"]);
}

async fn priority_orders_the_jobs_of_one_owner_only(db: &Database) {
    let low = add(&**db, "a", -1).await;
    let (first, second) = (add(&**db, "a", 5).await, add(&**db, "a", 5).await);
    let default = add(&**db, "a", 0).await;
    let other = add(&**db, "b", -100).await;
    assert_eq!((low.priority, first.priority), (-1, 5));
    let mut claimed = Vec::new();
    while let Some(claim) = claim(&**db).await {
        claimed.push(claim.job.id);
    }
    assert_eq!(claimed, [first.id, other.id, second.id, default.id, low.id]);
}

async fn positions_in_the_queue_are_the_order_of_the_claims(db: &Database) {
    // Owner a has two running jobs and b one.
    add_all(&**db, &["a", "a", "b"]).await;
    let mut running = Vec::new();
    while let Some(claim) = claim(&**db).await {
        running.push(claim);
    }
    let mut queued = Vec::new();
    for (owner, priority) in
        [("a", 0), ("a", 3), ("b", 0), ("c", 1), ("c", 0), ("b", 2), ("a", 0), ("c", 2), ("c", 0), ("b", -1)]
    {
        queued.push(add(&**db, owner, priority).await);
    }
    while !queued.is_empty() {
        let mut positions = Vec::new();
        for job in &queued {
            positions.push((db.queue_position(job.id).await.unwrap(), job.id));
        }
        positions.sort_unstable();
        assert!(positions.iter().map(|(position, _)| *position).eq(0..queued.len() as u64), "{positions:?}");
        let claim = claim(&**db).await.unwrap();
        assert_eq!(claim.job.id, positions[0].1);
        queued.retain(|job| job.id != claim.job.id);
        // Jobs finish now and then.
        running.push(claim);
        if queued.len() % 3 == 0 {
            db.fail_job(&running.remove(0).lease, &job_error()).await.unwrap();
        }
    }
}

async fn an_interrupted_job_goes_on_before_others_start(db: &Database) {
    add(&**db, "a", 0).await;
    let interrupted = claim(&**db).await.unwrap();
    let waiting = add(&**db, "b", 100).await;
    db.requeue(&interrupted.lease).await.unwrap();
    assert_eq!(db.queue_position(interrupted.job.id).await.unwrap(), 0);
    assert_eq!(claim(&**db).await.unwrap().job.id, interrupted.job.id);
    // A pause ends it.
    let again = db.job("a", interrupted.job.id).await.unwrap();
    db.pause_job("a", again.id).await.unwrap();
    expire_leases(&**db).await;
    assert_eq!(claim(&**db).await.unwrap().job.id, waiting.id);
    add(&**db, "c", 0).await;
    db.resume_job("a", again.id).await.unwrap();
    assert_eq!(claim(&**db).await.unwrap().job.owner, "c", "it is the turn of c, which has had none");
}

async fn an_expired_lease_is_resumed_before_others_start(db: &Database) {
    add_all(&**db, &["b"]).await;
    let lost = claim(&**db).await.unwrap();
    add_all(&**db, &["a", "a"]).await;
    expire_leases(&**db).await;
    assert_eq!(claim(&**db).await.unwrap().job.id, lost.job.id);
    assert_eq!(claim(&**db).await.unwrap().job.owner, "a");
}

async fn a_job_that_waits_after_a_failure_gives_its_turn_away(db: &Database) {
    add_all(&**db, &["a", "b", "b"]).await;
    let failed = claim(&**db).await.unwrap();
    assert_eq!(failed.job.owner, "a");
    let fault = AttemptFault::Environment;
    db.record_failed_attempt(&failed.lease, fault, &job_error(), MAX_ATTEMPTS).await.unwrap();
    assert_eq!(claimed_owners(&**db).await, ["b", "b"]);
    expire_leases(&**db).await;
    assert!(claim(&**db).await.is_some());
}

async fn concurrent_claims_take_turns(db: &Database) {
    for _ in 0..20 {
        add(&**db, "a", 0).await;
    }
    add_all(&**db, &["b", "b", "c", "d"]).await;
    let other = db.reconnect().await;
    let claims = [db.store(), other.clone(), db.store(), other]
        .map(|store| tokio::spawn(async move { claim(&*store).await.unwrap().job.owner }));
    let mut owners = HashSet::new();
    for claim in claims {
        owners.insert(claim.await.unwrap());
    }
    assert_eq!(owners.len(), 4, "each claim takes another owner's job: {owners:?}");
}

async fn a_worker_claims_the_jobs_of_its_platform(db: &Database) {
    add_all(&**db, &["a", "b"]).await;
    let other = Platform { kernels: "other".to_string(), ..platform() };
    let (rules, other) = (claim_rules(), ClaimRules { platform: other, ..claim_rules() });
    assert!(db.claim(&worker(), &other).await.unwrap().is_none());
    let claimed = db.claim(&worker(), &rules).await.unwrap().unwrap();
    expire_leases(&**db).await;
    assert!(db.claim(&worker(), &other).await.unwrap().is_none(), "nor after its lease");
    let again = db.claim(&worker(), &rules).await.unwrap().unwrap();
    assert_eq!(again.job.id, claimed.job.id);
}

async fn an_owner_runs_no_more_jobs_than_its_limit(db: &Database) {
    add_all(&**db, &["a", "a", "a", "b", "b", "b"]).await;
    let limits = OwnerLimits { running_jobs: Some(2), ..OwnerLimits::default() };
    db.set_owner_limits("b", limits).await.unwrap();
    let rules = ClaimRules { max_running_per_owner: Some(1), ..claim_rules() };
    let mut claims = Vec::new();
    while let Some(claimed) = db.claim(&worker(), &rules).await.unwrap() {
        claims.push(claimed);
    }
    let owners: Vec<&str> = claims.iter().map(|claim| claim.job.owner.as_str()).collect();
    assert_eq!(owners, ["a", "b", "b"], "the limit of the settings, and one of its own");
    db.complete_requested_action(&claims[0].lease, espalier::store::RequestedAction::Cancel).await.unwrap();
    assert_eq!(db.claim(&worker(), &rules).await.unwrap().unwrap().job.owner, "a");
}

async fn a_running_job_is_preempted_when_an_owner_with_less_slot_time_waits(db: &Database) {
    let slice = Duration::from_secs(10);
    let preempted = |job: &Job, limit| {
        let id = job.id;
        async move { db.is_turn_of_another_owner(id, slice, limit).await.unwrap() }
    };
    add_all(&**db, &["a", "a", "a"]).await;
    let (first, second) = (claim(&**db).await.unwrap(), claim(&**db).await.unwrap());
    db.add_slot_time("a", slice * 2).await.unwrap();
    assert!(!preempted(&second.job, None).await, "the job that waits is of the same owner");
    let waiting = add(&**db, "b", 0).await;
    assert!(preempted(&second.job, None).await);
    assert!(!preempted(&first.job, None).await, "one job of the owner is enough");
    assert!(!preempted(&waiting, None).await, "a queued job is not preempted");
    assert!(!preempted(&second.job, Some(0)).await, "no owner may run a job");
    let other = claim(&**db).await.unwrap();
    assert_eq!(other.job.id, waiting.id);
    add(&**db, "b", 0).await;
    assert!(preempted(&second.job, None).await, "a has two running jobs, b one");
    db.add_slot_time("b", slice + Duration::from_secs(1)).await.unwrap();
    assert!(!preempted(&second.job, None).await, "b used slots almost as long");
    db.add_slot_time("a", slice).await.unwrap();
    db.preempt(&second.lease).await.unwrap();
    assert!(!preempted(&first.job, None).await && !preempted(&other.job, None).await, "both have one");
    // A job that waits after a failed attempt takes no slot.
    db.record_failed_attempt(&other.lease, AttemptFault::Environment, &job_error(), MAX_ATTEMPTS).await.unwrap();
    assert!(preempted(&first.job, None).await, "the other job of b may run");
    let last = claim(&**db).await.unwrap();
    assert_eq!(last.job.owner, "b");
    db.fail_job(&last.lease, &job_error()).await.unwrap();
    assert!(!preempted(&first.job, None).await, "the job that is left of b waits");
}

async fn the_owner_with_the_least_slot_time_is_next_among_owners_with_as_many_running_jobs(db: &Database) {
    add_all(&**db, &["a", "b", "c"]).await;
    db.add_slot_time("a", Duration::from_secs(60)).await.unwrap();
    db.add_slot_time("b", Duration::from_secs(30)).await.unwrap();
    db.add_slot_time("nobody", Duration::from_secs(30)).await.unwrap();
    assert_eq!(claimed_owners(&**db).await, ["c", "b", "a"]);
}

async fn a_preempted_job_waits_for_its_owners_next_turn(db: &Database) {
    add_all(&**db, &["a", "a"]).await;
    let first = claim(&**db).await.unwrap();
    add_all(&**db, &["b", "b"]).await;
    db.preempt(&first.lease).await.unwrap();
    assert!(db.heartbeat(&first.lease, LEASE, None).await.is_err(), "the lease has ended");
    let next = claim(&**db).await.unwrap();
    assert_eq!(next.job.owner, "b");
    db.preempt(&next.lease).await.unwrap();
    let resumed = claim(&**db).await.unwrap();
    assert_eq!((resumed.job.id, resumed.job.attempt), (first.job.id, 2), "the owner's oldest job resumes");
    // The owner's request holds.
    db.pause_job("a", resumed.job.id).await.unwrap();
    db.preempt(&resumed.lease).await.unwrap();
    assert_eq!(db.job("a", resumed.job.id).await.unwrap().status, espalier::store::Status::Paused);
}
