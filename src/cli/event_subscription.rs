//! What happens to a job, as it happens: its event stream, taken up again where it broke, and Ctrl-C.
//!
//! Both arrive on one channel. Knows nothing of how they are shown.

use super::client::{Client, encode_path_segment};
use super::error::{CliError, CliResult};
use super::sse::{Event, EventStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::ACCEPT;

#[derive(Debug)]
pub enum JobUpdate {
    Event(Event),
    /// Ctrl-C.
    Interrupted,
}

/// A server says that it is alive more often than this.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two tries to reach a server that is restarting.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Follows a job from its first event on.
///
/// # Errors
/// `Failed` where the machine has no thread left.
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

/// Until nobody listens any more, or the server refuses: then whoever asks for the job itself learns why.
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
            // 204: the job is over, and everything was told.
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
    // Without a handler Ctrl-C still ends the command, which leaves the job alone just the same.
    if let Ok(runtime) = runtime
        && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
    {
        let _ = updates.send(JobUpdate::Interrupted);
    }
}
