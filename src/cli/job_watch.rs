//! Watching a job to its end: its event stream for what happened, the job itself for how far it is.
//!
//! The stream may break and the server restart: the job is asked for every second in any case.

use super::api_types::{Event, Job, ListResponse};
use super::client::{Client, encode_path_segment};
use super::error::{CliError, CliResult};
use super::event_subscription::{JobUpdate, subscribe};
use super::metrics;
use super::output::Output;
use super::progress_display::ProgressDisplay;
use super::sse;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How watching ended.
pub enum WatchOutcome {
    Finished(Box<Job>),
    /// Ctrl-C: the job goes on.
    Detached,
}

/// Between two looks at the job.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A server that is silent for longer is not just restarting.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_secs(300);

struct Watcher<'a> {
    client: &'a Client,
    id: &'a str,
    output: &'a mut Output,
    display: ProgressDisplay,
    /// The newest event that was shown.
    last_shown_sequence: i64,
    unreachable_since: Option<Instant>,
}

/// Shows a job until it is over or Ctrl-C is pressed.
///
/// # Errors
/// What the server refuses, and a server that does not answer for five minutes.
pub fn watch(client: &Client, id: &str, output: &mut Output) -> CliResult<WatchOutcome> {
    let display = ProgressDisplay::new(output);
    let mut watch = Watcher { client, id, output, display, last_shown_sequence: 0, unreachable_since: None };
    let outcome = watch.run();
    watch.display.clear();
    outcome
}

impl Watcher<'_> {
    fn run(&mut self) -> CliResult<WatchOutcome> {
        let updates = subscribe(self.client, self.id)?;
        let mut next_poll = Instant::now();
        loop {
            match updates.recv_timeout(next_poll.saturating_duration_since(Instant::now())) {
                Ok(JobUpdate::Interrupted) => return Ok(WatchOutcome::Detached),
                Ok(JobUpdate::Event(event)) => {
                    self.handle_event(&event)?;
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(POLL_INTERVAL),
            }
            if let Some(job) = self.poll_job()? {
                return Ok(WatchOutcome::Finished(Box::new(job)));
            }
            next_poll = Instant::now() + POLL_INTERVAL;
        }
    }

    /// `progress` has no number of its own and tells of the moment; all other events are history.
    fn handle_event(&mut self, event: &sse::Event) -> CliResult {
        if event.event_type == "progress" {
            return match serde_json::from_str(&event.data) {
                Ok(progress) => self.display.show_running(&progress, self.output),
                Err(_) => Ok(()),
            };
        }
        match parse_event(event) {
            Some(event) => self.show_event(&event),
            None => Ok(()),
        }
    }

    /// The job, once it is over and all its events were shown.
    fn poll_job(&mut self) -> CliResult<Option<Job>> {
        let job: Job = match self.client.get(&format!("/jobs/{}", encode_path_segment(self.id))) {
            Ok(job) => job,
            Err(CliError::Failed(reason)) => return self.tolerate_unreachable(&reason).map(|()| None),
            Err(failure) => return Err(failure),
        };
        self.unreachable_since = None;
        if job.is_finished() {
            self.show_missed_events()?;
            return Ok(Some(job));
        }
        match (&job.progress, job.status.as_str()) {
            (Some(progress), "running") => self.display.show_running(progress, self.output)?,
            _ => self.display.show_waiting(&describe_status(&job), self.output)?,
        }
        Ok(None)
    }

    /// A server that restarts is waited for.
    fn tolerate_unreachable(&mut self, reason: &str) -> CliResult {
        let unreachable_since = *self.unreachable_since.get_or_insert_with(Instant::now);
        if unreachable_since.elapsed() > UNREACHABLE_TIMEOUT {
            let resume_hint = format!("the job may still be there: espalier jobs watch {}", self.id);
            return Err(CliError::failed(format!("{reason}\n{resume_hint}")));
        }
        self.display.show_waiting("the server does not answer: waiting for it", self.output)
    }

    /// The events that the stream did not bring.
    fn show_missed_events(&mut self) -> CliResult {
        loop {
            let path = format!("/jobs/{}/events?after={}", encode_path_segment(self.id), self.last_shown_sequence);
            let events: ListResponse<Event> = self.client.get(&path)?;
            if events.data.iter().all(|event| event.sequence <= self.last_shown_sequence) {
                return Ok(());
            }
            for event in &events.data {
                self.show_event(event)?;
            }
        }
    }

    fn show_event(&mut self, event: &Event) -> CliResult {
        if event.sequence <= self.last_shown_sequence {
            return Ok(());
        }
        self.last_shown_sequence = event.sequence;
        match event.kind.as_str() {
            "metrics" => match metrics::format_row(&event.data) {
                Some(line) => self.display.print_line(&line, self.output),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// What waits for what.
pub fn describe_status(job: &Job) -> String {
    match (job.status.as_str(), job.queue_position) {
        ("queued", Some(0)) => "queued: next in line".to_string(),
        ("queued", Some(1)) => "queued: 1 job before it".to_string(),
        ("queued", Some(position)) => format!("queued: {position} jobs before it"),
        ("paused", _) => format!("paused: espalier jobs resume {}", job.id),
        ("running", _) => "running: preparing the data".to_string(),
        (status, _) => status.to_string(),
    }
}

/// The stream names the sequence as its id and the kind as its event; the data is the event's.
fn parse_event(event: &sse::Event) -> Option<Event> {
    Some(Event {
        sequence: event.id.as_deref()?.parse().ok()?,
        kind: event.event_type.clone(),
        data: serde_json::from_str(&event.data).ok()?,
        created_at: String::new(),
    })
}
