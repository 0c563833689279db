//! Watches a job until it finishes, with its event stream and by polling the job.
//!
//! Polling continues while the stream is interrupted or the server restarts.

mod progress_display;

use super::api_types::{Event, Job, WaitingFor};
use super::client::{Client, encode_path_segment};
use super::error::{CliError, CliResult};
use super::output::Output;
use super::pagination::ListResponse;
use super::sse::{JobUpdate, subscribe};
use super::{job_metrics, sse, usage_hints};
use progress_display::ProgressDisplay;
use serde_json::Value;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How watching ended.
enum WatchOutcome {
    Finished(Box<Job>),
    /// The user pressed Ctrl-C; the job continues.
    Detached,
}

/// Interval of polling the job.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which an unreachable server is an error; restarts are shorter.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_secs(300);

struct Watcher<'a> {
    client: &'a Client,
    id: &'a str,
    output: &'a mut Output,
    display: ProgressDisplay,
    /// Sequence number of the last event shown.
    last_shown_sequence: i64,
    unreachable_since: Option<Instant>,
}

/// Watches a job until it finishes and shows its result.
///
/// # Errors
/// `Failed` if the job does not succeed, and the errors of the client.
pub fn watch_to_end(client: &Client, id: &str, output: &mut Output) -> CliResult {
    match watch(client, id, output)? {
        WatchOutcome::Finished(job) => report_result(client, &job, output),
        WatchOutcome::Detached => {
            output.write_line("")?;
            output.write_line("the job continues; watch it again with:")?;
            output.write_line(format!("  espalier jobs watch {id}{}", usage_hints::server_flag(client)))
        }
    }
}

/// Shows progress and events of a job until it finishes or the user presses Ctrl-C.
///
/// # Errors
/// `InvalidInput` or `Failed` if the server rejects the request; `Failed` if it is unreachable for [`UNREACHABLE_TIMEOUT`].
fn watch(client: &Client, id: &str, output: &mut Output) -> CliResult<WatchOutcome> {
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

    /// Shows an event. `progress` events have no sequence number.
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

    /// Polls the job and shows its progress. Returns the job when it is finished and all its events were shown.
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

    /// Waits for a server that restarts, up to [`UNREACHABLE_TIMEOUT`].
    fn tolerate_unreachable(&mut self, reason: &str) -> CliResult {
        let unreachable_since = *self.unreachable_since.get_or_insert_with(Instant::now);
        if unreachable_since.elapsed() > UNREACHABLE_TIMEOUT {
            let resume_hint = format!("the job may still exist: espalier jobs watch {}", self.id);
            return Err(CliError::failed(format!("{reason}\n{resume_hint}")));
        }
        self.display.show_waiting("the server does not answer: retrying", self.output)
    }

    /// Shows the events that the stream did not deliver.
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
            "metrics" => match job_metrics::format_row(&event.data) {
                Some(line) => self.display.print_line(&line, self.output),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Describes the status of a job that shows no progress.
pub fn describe_status(job: &Job) -> String {
    if let Some(WaitingFor { base, kernels }) = &job.waiting_for {
        return format!("queued: waits for a worker with the base model {base} and the kernel set {kernels}");
    }
    match (job.status.as_str(), job.queue_position) {
        ("queued", Some(0)) => "queued: next to run".to_string(),
        ("queued", Some(1)) => "queued: 1 job before it".to_string(),
        ("queued", Some(position)) => format!("queued: {position} jobs before it"),
        ("paused", _) => format!("paused: espalier jobs resume {}", job.id),
        ("running", _) => "running: preparing the data".to_string(),
        (status, _) => status.to_string(),
    }
}

fn report_result(client: &Client, job: &Job, output: &mut Output) -> CliResult {
    let job_json: Value = client.get(&format!("/jobs/{}", job.id))?;
    output.write_json(&job_json)?;
    match (job.status.as_str(), &job.error) {
        ("succeeded", _) => show_adapter(client, job, &job_json, output),
        (_, Some(error)) => Err(CliError::failed(format!("job {} {}: {}", job.id, job.status, error.detail))),
        (status, None) => Err(CliError::failed(format!("job {} was {status}", job.id))),
    }
}

fn show_adapter(client: &Client, job: &Job, job_json: &Value, output: &mut Output) -> CliResult {
    output.write_line(format!("job {} succeeded", job.id))?;
    if let Some(metrics) = &job.metrics {
        output.write_line("")?;
        output.write_table(&job_metrics::metrics_table(metrics))?;
        let classes = job_metrics::worst_classes(metrics);
        if !classes.is_empty() {
            output.write_line("")?;
            output.write_line("labels with the lowest F1:")?;
            output.write_table(&classes)?;
        }
    }
    let Some(adapter) = job.adapter_reference() else { return Ok(()) };
    output.write_line("")?;
    usage_hints::print_usage_hints(client, adapter, job_json, output)
}

/// Parses an event of the stream: the id is the sequence number, the event type the kind.
fn parse_event(event: &sse::Event) -> Option<Event> {
    Some(Event {
        sequence: event.id.as_deref()?.parse().ok()?,
        kind: event.event_type.clone(),
        data: serde_json::from_str(&event.data).ok()?,
        created_at: String::new(),
    })
}
