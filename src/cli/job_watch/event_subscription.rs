//! Subscription to a job's event stream, with reconnection, and to Ctrl-C, on one channel.

use crate::cli::client::{Client, encode_path_segment};
use crate::cli::error::{CliError, CliResult};
use crate::cli::sse::{Event, EventStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::ACCEPT;

/// Update for the watcher.
#[derive(Debug)]
pub enum JobUpdate {
    Event(Event),
    /// The user pressed Ctrl-C.
    Interrupted,
}

/// Maximum time without data; the server sends keep-alive comments more often.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Delay before reconnecting to the stream.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Subscribes to all events of a job, from the first.
///
/// # Errors
/// `Failed` if a thread cannot be started.
pub fn subscribe(client: &Client, job_id: &str) -> CliResult<Receiver<JobUpdate>> {
    let (sender, receiver) = channel();
    let (client, path, events) =
        (client.clone(), format!("/jobs/{}/events", encode_path_segment(job_id)), sender.clone());
    spawn_named("events", move || read_events_loop(&client, &path, &events))?;
    spawn_named("interrupt", move || wait_for_ctrl_c(&sender))?;
    Ok(receiver)
}

fn spawn_named(name: &str, body: impl FnOnce() + Send + 'static) -> CliResult {
    let thread = thread::Builder::new().name(name.to_string()).spawn(body);
    thread.map(drop).map_err(|error| CliError::failed(format!("no thread can be started: {error}")))
}

/// Sends events until the receiver is dropped, the stream is complete, or the server rejects the request; polling the job then
/// reports the error.
fn read_events_loop(client: &Client, path: &str, updates: &Sender<JobUpdate>) {
    let mut last_event_id = None;
    loop {
        let mut request = client.request(Method::GET, path);
        if let Some(headers) = request.headers_mut() {
            headers.insert(ACCEPT, ureq::http::HeaderValue::from_static("text/event-stream"));
        }
        if let Some(id) = &last_event_id {
            request = request.header("last-event-id", id);
        }
        match client.open_stream(request, (), READ_TIMEOUT) {
            // 204: the job is finished and all events were received.
            Ok(response) if response.status().as_u16() == 204 => return,
            Ok(response) if response.status().is_success() => {
                for event in EventStream::new(response.into_body().into_reader()).map_while(Result::ok) {
                    last_event_id = event.id.clone().or(last_event_id);
                    if updates.send(JobUpdate::Event(event)).is_err() {
                        return;
                    }
                }
            }
            Ok(response) if response.status().is_client_error() => return,
            Ok(_) | Err(_) => {}
        }
        thread::park_timeout(RECONNECT_DELAY);
    }
}

fn wait_for_ctrl_c(updates: &Sender<JobUpdate>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    // Without a handler Ctrl-C ends the command; the job continues in that case too.
    if let Ok(runtime) = runtime
        && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
    {
        let _ = updates.send(JobUpdate::Interrupted);
    }
}
