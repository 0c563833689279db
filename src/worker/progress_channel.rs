//! Channel from the training thread to the attempt, which writes to the database.
//!
//! Reporting does not block: the thread stores its progress and gets the stop reason in return.

use super::stop_signal::StopSignal;
use espalier_core::training::{MetricsRow, Progress, StopReason};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Channel from the training thread to the task that writes progress to the store.
pub struct ProgressChannel {
    stop_signal: Arc<StopSignal>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// When the run reported its first progress.
    started_at: Option<Instant>,
    progress: Option<Progress>,
    updates: Updates,
}

/// Updates that are not yet in the database.
#[derive(Debug, Default, PartialEq)]
pub struct Updates {
    /// Metrics rows in order.
    pub rows: Vec<MetricsRow>,
    /// Step of the newest checkpoint, if there is a new one.
    pub checkpoint: Option<u64>,
}

impl ProgressChannel {
    pub fn new(stop_signal: Arc<StopSignal>) -> Self {
        Self { stop_signal, state: Mutex::default(), changed: Notify::new() }
    }

    /// Stores a report of the training thread. Breaks with the reason if the run must stop.
    pub fn report(&self, progress: &Progress) -> ControlFlow<StopReason> {
        let has_updates = progress.has_new_checkpoint || !progress.new_rows.is_empty();
        let mut state = self.lock();
        state.updates.rows.extend(progress.new_rows.iter().cloned());
        if progress.has_new_checkpoint {
            state.updates.checkpoint = Some(progress.step);
        }
        // A run that has not started must not overwrite the progress of an earlier attempt.
        if progress.total_steps > 0 {
            state.started_at.get_or_insert_with(Instant::now);
            state.progress =
                Some(Progress { new_rows: Vec::new(), has_new_checkpoint: false, new_examples: 0, ..progress.clone() });
        }
        drop(state);
        if has_updates {
            self.changed.notify_one();
        }
        match self.stop_signal.stop_reason() {
            Some(stop) => ControlFlow::Break(stop),
            None => ControlFlow::Continue(()),
        }
    }

    /// Latest progress.
    pub fn progress(&self) -> Option<Progress> {
        self.lock().progress.clone()
    }

    /// When the run had its first progress, while it has steps left.
    pub fn training_started_at(&self) -> Option<Instant> {
        let state = self.lock();
        let is_training = state.progress.as_ref().is_some_and(|progress| progress.step < progress.total_steps);
        state.started_at.filter(|_| is_training)
    }

    /// Waits for an update.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns the updates since the last call.
    pub fn take_updates(&self) -> Updates {
        std::mem::take(&mut self.lock().updates)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RequestedAction;
    use serde_json::json;
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    fn progress_channel() -> (ProgressChannel, Arc<StopSignal>) {
        let lease_deadline = Instant::now() + Duration::from_secs(3600);
        let stop_signal = Arc::new(StopSignal::new(CancellationToken::new(), lease_deadline));
        (ProgressChannel::new(Arc::clone(&stop_signal)), stop_signal)
    }

    fn progress(step: u64) -> Progress {
        Progress {
            step,
            total_steps: 10,
            epoch: 0.5,
            train_loss: 1.0,
            examples_per_second: 100.0,
            eta_seconds: 1.0,
            new_rows: Vec::new(),
            has_new_checkpoint: false,
            new_examples: 0,
        }
    }

    fn row(step: u64) -> MetricsRow {
        MetricsRow { step, split: "train".to_string(), metrics: json!({"loss": 1.0}) }
    }

    #[test]
    fn rows_are_taken_once_and_in_order_across_reports() {
        let (channel, _stop_signal) = progress_channel();
        for step in [1, 2] {
            let report = Progress { new_rows: vec![row(step)], has_new_checkpoint: step == 1, ..progress(step) };
            assert!(channel.report(&report).is_continue());
        }
        assert_eq!(channel.take_updates(), Updates { rows: vec![row(1), row(2)], checkpoint: Some(1) });
        assert_eq!(channel.take_updates(), Updates::default());
        assert_eq!(channel.progress(), Some(progress(2)), "the progress carries no rows");
    }

    #[test]
    fn a_run_that_has_not_started_reports_no_progress() {
        let (channel, _stop_signal) = progress_channel();
        let _ = channel.report(&Progress { total_steps: 0, ..progress(0) });
        assert_eq!(channel.progress(), None);
    }

    #[test]
    fn the_training_thread_sees_the_stop_reason_at_its_next_report() {
        let (channel, stop_signal) = progress_channel();
        assert!(channel.report(&progress(1)).is_continue());
        stop_signal.set_requested_action(Some(RequestedAction::Cancel));
        assert_eq!(channel.report(&progress(2)), ControlFlow::Break(StopReason::Cancel));
    }

    #[tokio::test]
    async fn an_update_sent_before_anyone_waits_is_not_lost() {
        let (channel, _stop_signal) = progress_channel();
        let _ = channel.report(&Progress { has_new_checkpoint: true, ..progress(3) });
        channel.changed().await;
        assert_eq!(channel.take_updates().checkpoint, Some(3));
    }
}
