//! Parser of server-sent events (WHATWG HTML, section 9.2).
//!
//! [`subscribe`] listens to a job's event stream, with reconnection, and to Ctrl-C, on one channel.

use crate::cli::client::{Client, encode_path_segment};
use crate::cli::error::{CliError, CliResult};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::ACCEPT;

/// Maximum length of a line, which bounds memory.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Last id that the stream sent; the value of `Last-Event-ID` when reconnecting.
    pub id: Option<String>,
    /// Event type; `message` by default.
    pub event_type: String,
    pub data: String,
}

/// Blocking iterator over server-sent events. An incomplete event at the end is dropped, as the standard requires.
pub struct EventStream<R> {
    reader: BufReader<R>,
    last_event_id: Option<String>,
}

impl<R: Read> EventStream<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), last_event_id: None }
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let count = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if count as u64 == MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the event stream is too long"));
        }
        if line.pop() != Some(b'\n') {
            return Ok(None);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    fn read_event(&mut self) -> io::Result<Option<Event>> {
        let (mut kind, mut data) = (String::new(), Vec::new());
        while let Some(line) = self.read_line()? {
            if line.is_empty() {
                if !data.is_empty() {
                    let kind = if kind.is_empty() { "message".to_string() } else { kind };
                    return Ok(Some(Event { id: self.last_event_id.clone(), event_type: kind, data: data.join("\n") }));
                }
                kind.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => kind = value.to_string(),
                "data" => data.push(value.to_string()),
                "id" if !value.contains('\0') => self.last_event_id = Some(value.to_string()),
                _ => {} // comments (an empty field), `retry` and unknown fields
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for EventStream<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_event().transpose()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Event> {
        EventStream::new(text.as_bytes()).map(Result::unwrap).collect()
    }

    fn new_event(id: Option<&str>, kind: &str, data: &str) -> Event {
        Event { id: id.map(str::to_string), event_type: kind.to_string(), data: data.to_string() }
    }

    #[test]
    fn events_have_an_id_a_type_and_data() {
        let text = "id: 1\nevent: status\ndata: {\"status\": \"queued\"}\n\ndata: a\r\ndata:b\r\n\r\n";
        let expected =
            [new_event(Some("1"), "status", "{\"status\": \"queued\"}"), new_event(Some("1"), "message", "a\nb")];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn comments_and_unknown_fields_are_ignored() {
        assert_eq!(parse(": alive\n\nretry: 10\ncolour: red\ndata\n\nevent: x\n\n"), [new_event(None, "message", "")]);
    }

    #[test]
    fn truncated_event_is_dropped() {
        assert_eq!(parse("data: whole\n\nid: 2\ndata: half\n"), [new_event(None, "message", "whole")]);
        assert_eq!(parse("data: half"), []);
    }
}
