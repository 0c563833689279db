//! One open stream: what is new since the last look, until the job is over, the server stops or the client goes.
//!
//! Knows nothing of requests.

use crate::http::state::State;
use axum::response::sse::Event;
use espalier_core::error::{Context, Result};
use espalier_core::training::Progress;
use futures_util::{Stream, stream};
use std::collections::VecDeque;
use std::convert::Infallible;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

pub struct Follow {
    state: State,
    owner: String,
    job: Uuid,
    /// The newest sequence number that was read.
    after: i64,
    told: Option<Progress>,
    pending: VecDeque<Event>,
    over: bool,
    polls: Interval,
    /// One of the server's places for streams.
    _place: OwnedSemaphorePermit,
}

impl Follow {
    pub fn new(state: State, owner: String, job: Uuid, after: i64, place: OwnedSemaphorePermit) -> Self {
        let mut polls = interval(state.settings.stream_poll);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pending = VecDeque::new();
        Self { state, owner, job, after, told: None, pending, over: false, polls, _place: place }
    }

    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follow| async { follow.next().await.map(|event| (Ok(event), follow)) })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            let shutdown = self.state.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => return None,
                _ = self.polls.tick() => {}
            }
            if let Err(error) = self.look().await {
                // the client comes back with the last id it has seen, and loses nothing
                tracing::warn!(job = %self.job, error = %error, "event stream broke off");
                return None;
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        // the job first: what is over when it is read has all its events
        let job = self.state.store.job(&self.owner, self.job).await?;
        let events = self.state.store.events(self.job, self.after, super::PAGE).await?;
        let all = events.len() < super::PAGE as usize;
        for event in events {
            self.after = event.sequence;
            let frame = Event::default().id(event.sequence.to_string()).event(event.kind.name());
            self.pending.push_back(frame.json_data(&event.data).context("writing an event")?);
        }
        match all {
            true => self.over = job.status.is_over(),
            false => self.polls.reset_immediately(),
        }
        if let Some(progress) = job.progress.filter(|_| !job.status.is_over())
            && self.told.as_ref() != Some(&progress)
        {
            let frame = Event::default().event("progress").json_data(&progress).context("writing an event")?;
            self.pending.push_back(frame);
            self.told = Some(progress);
        }
        Ok(())
    }
}
