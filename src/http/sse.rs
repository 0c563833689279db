//! Server-sent events: responses and frames.

use super::state::AppState;
use axum::http::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use std::convert::Infallible;

/// Response that sends the events with keep-alive comments.
pub fn sse_response(state: &AppState, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(state.settings.sse_keep_alive_interval).text("alive");
    // nginx and compatible proxies buffer responses unless this header is set.
    let no_buffering = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let events = events.map(Ok::<Event, Infallible>);
    (no_buffering, Sse::new(events).keep_alive(keep_alive)).into_response()
}

/// Event with a JSON value as its data; a comment if the value cannot be serialized.
pub fn json_event(data: &impl Serialize) -> Event {
    with_json(Event::default(), data)
}

/// [`json_event`] with a name, which is written before the data.
pub fn named_json_event(name: &str, data: &impl Serialize) -> Event {
    with_json(Event::default().event(name), data)
}

fn with_json(event: Event, data: &impl Serialize) -> Event {
    event.json_data(data).unwrap_or_else(|_| Event::default().comment("unwritable"))
}
