//! What happens to a job, as it happens: its event stream, taken up again where it broke, and Ctrl-C.
//!
//! Both arrive on one channel. Knows nothing of how they are shown.

use super::client::{Client, segment};
use super::failure::{Failure, Outcome};
use super::sse::{Event, Events};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::ACCEPT;

#[derive(Debug)]
pub enum News {
    Event(Event),
    /// Ctrl-C.
    Interrupted,
}

/// A server says that it is alive more often than this.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two tries to reach a server that is restarting.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows a job from its first event on.
///
/// # Errors
/// `Failed` where the machine has no thread left.
pub fn follow(client: &Client, job: &str) -> Outcome<Receiver<News>> {
    let (sender, receiver) = channel();
    let (client, path, events) = (client.clone(), format!("/jobs/{}/events", segment(job)), sender.clone());
    start("events", move || read_on(&client, &path, &events))?;
    start("interrupt", move || interrupted(&sender))?;
    Ok(receiver)
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Outcome {
    let thread = thread::Builder::new().name(name.to_string()).spawn(run);
    thread.map(drop).map_err(|error| Failure::failed(format!("no thread can be started: {error}")))
}

/// Until nobody listens any more, or the server refuses: then whoever asks for the job itself learns why.
fn read_on(client: &Client, path: &str, news: &Sender<News>) {
    let mut last = None;
    loop {
        let mut request = client.request(Method::GET, path);
        if let Some(headers) = request.headers_mut() {
            headers.insert(ACCEPT, ureq::http::HeaderValue::from_static("text/event-stream"));
        }
        if let Some(id) = &last {
            request = request.header("last-event-id", id);
        }
        match client.stream(request, (), SILENCE) {
            // 204: the job is over, and everything was told.
            Ok(response) if response.status().as_u16() == 204 => return,
            Ok(response) if response.status().is_success() => {
                for event in Events::new(response.into_body().into_reader()).map_while(Result::ok) {
                    last = event.id.clone().or(last);
                    if news.send(News::Event(event)).is_err() {
                        return;
                    }
                }
            }
            Ok(response) if response.status().is_client_error() => return,
            Ok(_) | Err(_) => {}
        }
        thread::park_timeout(PAUSE);
    }
}

fn interrupted(news: &Sender<News>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    // Without a handler Ctrl-C still ends the command, which leaves the job alone just the same.
    if let Ok(runtime) = runtime
        && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
    {
        let _ = news.send(News::Interrupted);
    }
}
