//! Changes of jobs as they are committed, by this process and, on Postgres, by every other one (`LISTEN` and `NOTIFY`).
//!
//! A change is a hint to read the database now. It can be lost, for example behind a pooler that gives a connection away after each
//! transaction, so a task that waits for one also polls.

use std::fmt;
use std::str::FromStr;
use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

/// Changes that a receiver can lag behind before it has to read everything again.
const CAPACITY: usize = 1024;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobChangeKind {
    /// A job can be claimed.
    Queued,
    /// The owner has requested an action of a running job, or withdrawn it.
    ActionRequested,
    /// A job has a new event.
    Event,
}

/// A change of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobChange {
    pub job: Uuid,
    pub kind: JobChangeKind,
}

impl JobChangeKind {
    const ALL: [Self; 3] = [Self::Queued, Self::ActionRequested, Self::Event];

    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::ActionRequested => "action_requested",
            Self::Event => "event",
        }
    }
}

impl fmt::Display for JobChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.job)
    }
}

impl FromStr for JobChange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, job) = text.split_once(' ').ok_or(())?;
        let kind = JobChangeKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(())?;
        Ok(Self { kind, job: Uuid::parse_str(job).map_err(|_| ())? })
    }
}

/// Sends changes to the receivers of this process; clones share the receivers.
#[derive(Debug, Clone)]
pub struct JobChanges(broadcast::Sender<Option<JobChange>>);

impl Default for JobChanges {
    fn default() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl JobChanges {
    pub fn send(&self, change: JobChange) {
        // Without a receiver nobody waits.
        let _ = self.0.send(Some(change));
    }

    /// Wakes every receiver, because changes may have been missed.
    pub fn send_lagged(&self) {
        let _ = self.0.send(None);
    }

    pub fn subscribe(&self) -> JobChangeReceiver {
        JobChangeReceiver(self.0.subscribe())
    }
}

/// Receives the changes from its subscription on.
#[derive(Debug)]
pub struct JobChangeReceiver(broadcast::Receiver<Option<JobChange>>);

impl JobChangeReceiver {
    /// Waits for a change that `is_wanted`, or until one may have been lost.
    pub async fn changed(&mut self, is_wanted: impl Fn(&JobChange) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(Some(change)) if !is_wanted(&change) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                // The store is gone; the task that waits also polls.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_parsed_from_its_text() {
        for kind in JobChangeKind::ALL {
            let change = JobChange { job: Uuid::now_v7(), kind };
            assert_eq!(change.to_string().parse(), Ok(change));
        }
        for text in ["", "queued", "queued x", "other 0192f0c8-1111-7000-8000-000000000000"] {
            assert_eq!(text.parse::<JobChange>(), Err(()));
        }
    }

    #[tokio::test]
    async fn a_receiver_waits_for_what_it_wants_or_for_a_loss() {
        let changes = JobChanges::default();
        let mut receiver = changes.subscribe();
        let job = Uuid::now_v7();
        changes.send(JobChange { job, kind: JobChangeKind::Event });
        changes.send(JobChange { job, kind: JobChangeKind::Queued });
        receiver.changed(|change| change.kind == JobChangeKind::Queued).await;
        changes.send_lagged();
        receiver.changed(|_| false).await;
        for _ in 0..=CAPACITY {
            changes.send(JobChange { job, kind: JobChangeKind::Event });
        }
        receiver.changed(|_| false).await;
    }
}
