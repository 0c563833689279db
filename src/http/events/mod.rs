//! `GET /jobs/{id}/events`: status changes and metrics of a job, as server-sent events or pages of JSON.
//!
//! The stream of one client polls the store until the job is finished, the server shuts down or the client disconnects.

use super::auth::Caller;
use super::error::ApiResult;
use super::extract::{PathId, QueryParams};
use super::openapi::{NotFound, ServiceUnavailable, UnprocessableEntity};
use super::sse::sse_response;
use super::state::AppState;
use crate::store::{ChangeReceiver, Event};
use axum::Json;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Context, Error, Result};
use espalier_core::training::Progress;
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Returns events after this sequence number; the header `Last-Event-ID` has the same effect.
    pub after: Option<i64>,
}

/// Page of a job's events, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    pub data: Vec<Event>,
    /// Value of `after` for the next page; `null` after the last event of a finished job.
    pub next: Option<String>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_job_events))
}

/// Stream a job's events
///
/// Server-sent events, from the first event or after `Last-Event-ID`, until the job is finished. `status` and `metrics` events
/// have a sequence number as their id and are replayed; `progress` events have no id and carry the current progress. If the job
/// is finished and all events were received, the response is 204, which stops browsers from reconnecting. With `Accept:
/// application/json`, the response is a page of the same events as JSON.
#[utoipa::path(
    get, path = "/jobs/{id}/events", operation_id = "get_job_events", tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "Job id."), EventsQuery,
        ("last-event-id" = Option<i64>, Header, description = "Sequence number of the last event received."),
    ),
    responses(
        (status = 200, description = "Events of the job.", content(
            (String = "text/event-stream", example = "id: 1\nevent: status\ndata: {\"status\":\"queued\"}\n\n"),
            (EventPage = "application/json", example = json!({"data": [{"sequence": 1, "kind": "status",
                "data": {"status": "queued"}, "created_at": "2026-01-05T09:30:00Z"}], "next": "1"})),
        )),
        (status = 204, description = "The job is finished and all events were received."),
        NotFound, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn get_job_events(
    state: AppState,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(query): QueryParams<EventsQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let resume_after = resume_position(query, &headers)?;
    match wants_json(&headers) {
        true => Ok(Json(event_page(&state, &caller.owner, id, resume_after).await?).into_response()),
        false => open_stream(state, caller.owner, id, resume_after).await,
    }
}

/// Returns the later position of query and header: a reconnecting browser repeats its first query.
fn resume_position(query: EventsQuery, headers: &HeaderMap) -> ApiResult<i64> {
    let Some(last_event_id) = headers.get(LAST_EVENT_ID) else { return Ok(query.after.unwrap_or(0)) };
    let last_event_id = last_event_id.to_str().ok().and_then(|last| last.trim().parse().ok());
    let last_event_id: i64 =
        last_event_id.ok_or_else(|| Error::invalid("invalid_header", "Last-Event-ID must be a sequence number"))?;
    Ok(query.after.map_or(last_event_id, |after| after.max(last_event_id)))
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

async fn event_page(state: &AppState, owner: &str, id: Uuid, after: i64) -> ApiResult<EventPage> {
    // Reads the job before its events: a job that is finished now has no events after this page.
    let is_finished = state.store.job(owner, id).await?.status.is_terminal();
    let data = state.store.events(id, after, PAGE_SIZE).await?;
    let is_complete = is_finished && data.len() < PAGE_SIZE as usize;
    let next = (!is_complete).then(|| data.last().map_or(after, |event| event.sequence).to_string());
    Ok(EventPage { data, next })
}

async fn open_stream(state: AppState, owner: String, id: Uuid, after: i64) -> ApiResult<Response> {
    let job = state.store.job(&owner, id).await?;
    if job.status.is_terminal() && state.store.events(id, after, 1).await?.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let permit = Arc::clone(&state.concurrency.event_streams).try_acquire_owned().map_err(|_| {
        let detail = "too many event streams are open: close some, or poll GET /jobs/{id}";
        Error::busy("too_many_streams", detail, Duration::from_secs(5))
    })?;
    Ok(sse_response(&state, EventStream::new(state.clone(), owner, id, after, permit).into_stream()))
}

/// Events read from the store at once.
pub const PAGE_SIZE: u32 = 500;

pub struct EventStream {
    state: AppState,
    owner: String,
    job_id: Uuid,
    /// Sequence number of the last event read.
    last_sequence: i64,
    last_progress: Option<Progress>,
    pending: VecDeque<SseEvent>,
    is_finished: bool,
    poll_interval: Interval,
    changes: ChangeReceiver,
    /// Permit of `ConcurrencyLimits::event_streams`.
    _permit: OwnedSemaphorePermit,
}

impl EventStream {
    pub fn new(state: AppState, owner: String, job_id: Uuid, last_sequence: i64, permit: OwnedSemaphorePermit) -> Self {
        let mut poll_interval = interval(state.settings.event_poll_interval);
        poll_interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (pending, changes) = (VecDeque::new(), state.store.changes());
        Self {
            state,
            owner,
            job_id,
            last_sequence,
            last_progress: None,
            pending,
            is_finished: false,
            poll_interval,
            changes,
            _permit: permit,
        }
    }

    pub fn into_stream(self) -> impl Stream<Item = SseEvent> + Send + 'static {
        stream::unfold(self, |mut event_stream| async {
            event_stream.next_event().await.map(|event| (event, event_stream))
        })
    }

    async fn next_event(&mut self) -> Option<SseEvent> {
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
                () = self.changes.changed(|change| change.job() == Some(self.job_id)) => {}
            }
            match self.poll_store().await {
                // While the database is unavailable the stream waits for it.
                Ok(()) | Err(Error::Busy { .. }) => {}
                Err(error) => {
                    // The client reconnects with the last id it received, so no event is lost.
                    tracing::warn!(job = %self.job_id, error = %error, "event stream failed");
                    return None;
                }
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
            let frame = SseEvent::default().id(event.sequence.to_string()).event(event.kind.as_str());
            self.pending.push_back(frame.json_data(&event.data).context("serializing an event")?);
        }
        match is_complete {
            true => self.is_finished = job.status.is_terminal(),
            false => self.poll_interval.reset_immediately(),
        }
        if let Some(progress) = job.progress.filter(|_| !job.status.is_terminal())
            && self.last_progress.as_ref() != Some(&progress)
        {
            let frame = SseEvent::default().event("progress").json_data(&progress).context("serializing an event")?;
            self.pending.push_back(frame);
            self.last_progress = Some(progress);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn resume_position_is_the_later_of_query_and_header() {
        let query = || EventsQuery { after: Some(3) };
        assert_eq!(resume_position(EventsQuery::default(), &HeaderMap::new()).unwrap(), 0);
        assert_eq!(resume_position(query(), &HeaderMap::new()).unwrap(), 3);
        assert_eq!(resume_position(query(), &headers(LAST_EVENT_ID, "7")).unwrap(), 7);
        assert_eq!(resume_position(query(), &headers(LAST_EVENT_ID, "2")).unwrap(), 3);
        assert_eq!(resume_position(query(), &headers(LAST_EVENT_ID, "x")).unwrap_err().code, "invalid_header");
    }

    #[test]
    fn json_needs_an_accept_header_without_event_stream() {
        for (accept, json) in
            [("application/json", true), ("text/event-stream, application/json", false), ("*/*", false)]
        {
            assert_eq!(wants_json(&headers(ACCEPT, accept)), json, "{accept}");
        }
        assert!(!wants_json(&HeaderMap::new()));
    }
}
