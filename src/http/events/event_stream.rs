//! Event stream of one client: polls the store until the job is finished, the server shuts down or the client disconnects.

use crate::http::state::AppState;
use axum::response::sse::Event;
use espalier_core::error::{Context, Result};
use espalier_core::training::Progress;
use futures_util::{Stream, stream};
use std::collections::VecDeque;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

/// Events read from the store at once.
pub const PAGE_SIZE: u32 = 500;

pub struct EventStream {
    state: AppState,
    owner: String,
    job_id: Uuid,
    /// Sequence number of the last event read.
    last_sequence: i64,
    last_progress: Option<Progress>,
    pending: VecDeque<Event>,
    is_finished: bool,
    poll_interval: Interval,
    /// Permit of `ConcurrencyLimits::event_streams`.
    _permit: OwnedSemaphorePermit,
}

impl EventStream {
    pub fn new(state: AppState, owner: String, job_id: Uuid, last_sequence: i64, permit: OwnedSemaphorePermit) -> Self {
        let mut poll_interval = interval(state.settings.event_poll_interval);
        poll_interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pending = VecDeque::new();
        Self {
            state,
            owner,
            job_id,
            last_sequence,
            last_progress: None,
            pending,
            is_finished: false,
            poll_interval,
            _permit: permit,
        }
    }

    pub fn into_stream(self) -> impl Stream<Item = Event> + Send + 'static {
        stream::unfold(self, |mut event_stream| async {
            event_stream.next_event().await.map(|event| (event, event_stream))
        })
    }

    async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.is_finished {
                return None;
            }
            let shutdown = self.state.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => return None,
                _ = self.poll_interval.tick() => {}
            }
            if let Err(error) = self.poll_store().await {
                // The client reconnects with the last id it received, so no event is lost.
                tracing::warn!(job = %self.job_id, error = %error, "event stream failed");
                return None;
            }
        }
    }

    /// Queues new events, and the progress if it changed.
    async fn poll_store(&mut self) -> Result<()> {
        // Reads the job before its events: a job that is finished now has no events after this page.
        let job = self.state.store.job(&self.owner, self.job_id).await?;
        let events = self.state.store.events(self.job_id, self.last_sequence, PAGE_SIZE).await?;
        let is_complete = events.len() < PAGE_SIZE as usize;
        for event in events {
            self.last_sequence = event.sequence;
            let frame = Event::default().id(event.sequence.to_string()).event(event.kind.as_str());
            self.pending.push_back(frame.json_data(&event.data).context("serializing an event")?);
        }
        match is_complete {
            true => self.is_finished = job.status.is_terminal(),
            false => self.poll_interval.reset_immediately(),
        }
        if let Some(progress) = job.progress.filter(|_| !job.status.is_terminal())
            && self.last_progress.as_ref() != Some(&progress)
        {
            let frame = Event::default().event("progress").json_data(&progress).context("serializing an event")?;
            self.pending.push_back(frame);
            self.last_progress = Some(progress);
        }
        Ok(())
    }
}
