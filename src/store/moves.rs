//! What may become of a job: the decisions that both databases share.
//!
//! Pure functions of the row that a transaction holds. Knows no SQL and no time.

use super::model::{JobError, Status, Wish};
use super::problems;
use espalier_core::error::Result;
use serde_json::{Value, json};
use uuid::Uuid;

/// What of a job's row decides, while a transaction holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub id: Uuid,
    pub epoch: i64,
    pub status: Status,
    pub wish: Option<Wish>,
    pub attempt: u32,
    /// Claims since the last new checkpoint.
    pub fruitless: u32,
}

/// What is to be done with the row of a job that its owner spoke about.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Move(Move),
    /// The status stays; this is what the worker will be told.
    Wish(Option<Wish>),
}

/// A change of status away from the worker: it ends lease and wish.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    pub status: Status,
    pub error: Option<JobError>,
    pub metrics: Option<Value>,
    pub adapter_id: Option<Uuid>,
    /// What the count of claims without a new checkpoint becomes.
    pub fruitless: u32,
}

/// What to do with the oldest job that can be claimed.
#[derive(Debug, Clone, PartialEq)]
pub enum Claiming {
    Take,
    Settle(Move),
}

impl Held {
    pub fn to(&self, status: Status) -> Move {
        Move { status, error: None, metrics: None, adapter_id: None, fruitless: self.fruitless }
    }

    pub fn fail(&self, error: &JobError) -> Move {
        let error = storable(error);
        Move { error: Some(error), ..self.to(Status::Failed) }
    }

    pub fn succeed(&self, adapter: Uuid, metrics: Value) -> Move {
        Move { adapter_id: Some(adapter), metrics: Some(metrics), ..self.to(Status::Succeeded) }
    }

    /// The worker let go of its own accord, so this claim is not held against the job.
    fn let_go(&self, status: Status) -> Move {
        Move { fruitless: self.fruitless.saturating_sub(1), ..self.to(status) }
    }
}

pub fn cancel(job: &Held) -> Result<Action> {
    match job.status {
        Status::Queued | Status::Paused => Ok(Action::Move(job.to(Status::Cancelled))),
        Status::Running => Ok(Action::Wish(Some(Wish::Cancel))),
        over => Err(problems::job_over(job.id, over)),
    }
}

/// A wish to cancel stands: it is not weakened to a pause.
pub fn pause(job: &Held) -> Result<Action> {
    match (job.status, job.wish) {
        (Status::Queued, _) => Ok(Action::Move(job.to(Status::Paused))),
        (Status::Running, None | Some(Wish::Pause)) => Ok(Action::Wish(Some(Wish::Pause))),
        (status, wish) => Err(problems::job_not_active(job.id, status, wish)),
    }
}

pub fn resume(job: &Held) -> Result<Action> {
    match (job.status, job.wish) {
        (Status::Paused, _) => Ok(Action::Move(job.to(Status::Queued))),
        (Status::Running, Some(Wish::Pause)) => Ok(Action::Wish(None)),
        (status, wish) => Err(problems::job_not_paused(job.id, status, wish)),
    }
}

/// The job is queued, or its lease has run out.
pub fn claiming(job: &Held, max_attempts: u32) -> Claiming {
    match job.wish {
        Some(wish) => Claiming::Settle(job.to(granted(wish))),
        None if job.fruitless >= max_attempts => {
            Claiming::Settle(job.fail(&problems::attempts_exhausted(job.fruitless)))
        }
        None => Claiming::Take,
    }
}

/// A worker hands its job back: to the queue, or to where the owner wishes it meanwhile.
pub fn released(job: &Held) -> Move {
    job.let_go(job.wish.map_or(Status::Queued, granted))
}

/// An attempt broke by a fault of ours: the job goes back, the claim counts, the error is told until the next one.
pub fn gave_up(job: &Held, error: &JobError) -> Move {
    Move { error: Some(storable(error)), ..job.to(job.wish.map_or(Status::Queued, granted)) }
}

/// An error may quote anything; it is told without what cannot be stored rather than lost.
fn storable(error: &JobError) -> JobError {
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    JobError { code: clean(&error.code), detail: clean(&error.detail) }
}

/// A worker has stopped as it was told. The owner may have changed their mind since: a later cancel wins over a pause,
/// and a pause that was taken back queues the job again.
pub fn stopped(job: &Held, wish: Wish) -> Move {
    match wish {
        Wish::Cancel => job.let_go(Status::Cancelled),
        Wish::Pause => released(job),
    }
}

fn granted(wish: Wish) -> Status {
    match wish {
        Wish::Cancel => Status::Cancelled,
        Wish::Pause => Status::Paused,
    }
}

pub fn queued_event() -> Value {
    json!({"status": Status::Queued.name()})
}

pub fn running_event(attempt: u32) -> Value {
    json!({"status": Status::Running.name(), "attempt": attempt})
}

/// The data of the event that tells of a move.
pub fn status_event(attempt: u32, to: &Move) -> Value {
    let mut data = json!({"status": to.status.name()});
    if attempt > 0 {
        data["attempt"] = json!(attempt);
    }
    if let Some(error) = &to.error {
        data["error"] = json!(error);
    }
    if let Some(adapter) = &to.adapter_id {
        data["adapter_id"] = json!(adapter);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(wish: Option<Wish>) -> Held {
        Held { id: Uuid::nil(), epoch: 3, status: Status::Running, wish, attempt: 3, fruitless: 2 }
    }

    #[test]
    fn a_wish_to_cancel_is_not_weakened_to_a_pause() {
        assert_eq!(pause(&running(Some(Wish::Cancel))).unwrap_err().code(), "job_not_active");
        assert_eq!(cancel(&running(Some(Wish::Pause))).unwrap(), Action::Wish(Some(Wish::Cancel)));
    }

    #[test]
    fn a_worker_that_pauses_obeys_the_newest_wish() {
        assert_eq!(stopped(&running(Some(Wish::Pause)), Wish::Pause).status, Status::Paused);
        assert_eq!(stopped(&running(Some(Wish::Cancel)), Wish::Pause).status, Status::Cancelled);
        assert_eq!(stopped(&running(None), Wish::Pause).status, Status::Queued);
    }

    #[test]
    fn letting_go_is_not_held_against_the_job() {
        assert_eq!(released(&running(None)).fruitless, 1);
        assert_eq!(running(None).to(Status::Queued).fruitless, 2);
    }

    #[test]
    fn a_wish_comes_before_the_count_of_attempts() {
        let Claiming::Settle(to) = claiming(&running(Some(Wish::Pause)), 2) else { panic!("must not be taken") };
        assert_eq!(to.status, Status::Paused);
        let Claiming::Settle(to) = claiming(&running(None), 2) else { panic!("must not be taken") };
        assert_eq!(to.error.expect("says why").code, "attempts_exhausted");
        assert_eq!(claiming(&running(None), 3), Claiming::Take);
    }
}
