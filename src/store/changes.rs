//! Changes of jobs and adapters as they are committed, by this process and, on Postgres, by every other one (`LISTEN` and `NOTIFY`).
//!
//! A change is a hint to read the database now. It can be lost, for example behind a pooler that gives a connection away after each
//! transaction, so a task that waits for one also polls, and what was read before is read again after a while.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

/// Changes that a receiver can lag behind before it has to read everything again.
const CAPACITY: usize = 1024;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A job can be claimed.
    JobQueued(Uuid),
    /// The owner of a running job has requested an action, or withdrawn it.
    JobActionRequested(Uuid),
    /// A job has a new event.
    JobEvent(Uuid),
    /// An adapter was added, deleted or activated, or is shared with others than before.
    Adapters,
}

impl Change {
    /// The job that changed.
    pub fn job(self) -> Option<Uuid> {
        match self {
            Self::JobQueued(job) | Self::JobActionRequested(job) | Self::JobEvent(job) => Some(job),
            Self::Adapters => None,
        }
    }
}

/// A change as other processes receive it. They ignore what they do not know, so that two versions can run at once.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JobQueued(job) => write!(f, "queued {job}"),
            Self::JobActionRequested(job) => write!(f, "action_requested {job}"),
            Self::JobEvent(job) => write!(f, "event {job}"),
            Self::Adapters => write!(f, "adapters"),
        }
    }
}

impl FromStr for Change {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "adapters" {
            return Ok(Self::Adapters);
        }
        let (kind, job) = text.split_once(' ').ok_or(())?;
        let job = Uuid::parse_str(job).map_err(|_| ())?;
        match kind {
            "queued" => Ok(Self::JobQueued(job)),
            "action_requested" => Ok(Self::JobActionRequested(job)),
            "event" => Ok(Self::JobEvent(job)),
            _ => Err(()),
        }
    }
}

/// Sends changes to the receivers of this process, and counts those of adapters. Clones share both.
#[derive(Debug, Clone)]
pub struct ChangeSender {
    sender: broadcast::Sender<Option<Change>>,
    adapter_changes: Arc<AtomicU64>,
}

impl Default for ChangeSender {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(CAPACITY), adapter_changes: Arc::default() }
    }
}

impl ChangeSender {
    pub fn send(&self, change: Change) {
        if change == Change::Adapters {
            self.adapter_changes.fetch_add(1, Ordering::Release);
        }
        // Without a receiver nobody waits.
        let _ = self.sender.send(Some(change));
    }

    /// Wakes every receiver, because changes may have been missed.
    pub fn send_lagged(&self) {
        self.adapter_changes.fetch_add(1, Ordering::Release);
        let _ = self.sender.send(None);
    }

    /// Number of times that adapters have changed, or may have.
    pub fn adapter_changes(&self) -> u64 {
        self.adapter_changes.load(Ordering::Acquire)
    }

    pub fn subscribe(&self) -> ChangeReceiver {
        ChangeReceiver(self.sender.subscribe())
    }
}

/// Receives the changes from its subscription on.
#[derive(Debug)]
pub struct ChangeReceiver(broadcast::Receiver<Option<Change>>);

impl ChangeReceiver {
    /// Waits for a change that `is_wanted`, or until one may have been lost.
    pub async fn changed(&mut self, is_wanted: impl Fn(Change) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(Some(change)) if !is_wanted(change) => {}
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
        let job = Uuid::now_v7();
        for change in [Change::JobQueued(job), Change::JobActionRequested(job), Change::JobEvent(job), Change::Adapters]
        {
            assert_eq!(change.to_string().parse(), Ok(change));
        }
        for text in ["", "queued", "queued x", "other 0192f0c8-1111-7000-8000-000000000000"] {
            assert_eq!(text.parse::<Change>(), Err(()));
        }
    }

    #[tokio::test]
    async fn a_receiver_waits_for_what_it_wants_or_for_a_loss() {
        let changes = ChangeSender::default();
        let mut receiver = changes.subscribe();
        let job = Uuid::now_v7();
        changes.send(Change::JobEvent(job));
        changes.send(Change::JobQueued(job));
        receiver.changed(|change| change == Change::JobQueued(job)).await;
        changes.send_lagged();
        receiver.changed(|_| false).await;
        for _ in 0..=CAPACITY {
            changes.send(Change::JobEvent(job));
        }
        receiver.changed(|_| false).await;
    }

    #[test]
    fn changes_of_adapters_and_losses_are_counted() {
        let changes = ChangeSender::default();
        changes.send(Change::JobEvent(Uuid::now_v7()));
        assert_eq!(changes.adapter_changes(), 0);
        changes.clone().send(Change::Adapters);
        changes.send_lagged();
        assert_eq!(changes.adapter_changes(), 2);
    }
}
