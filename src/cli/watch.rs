//! Watching a job to its end: its event stream for what happened, the job itself for how far it is.
//!
//! The stream may break and the server restart: the job is asked for every second in any case.

use super::client::{Client, segment};
use super::failure::{Failure, Outcome};
use super::follow::{News, follow};
use super::metrics;
use super::output::Output;
use super::progress::Display;
use super::sse;
use super::views::{Event, Job, List};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How watching ended.
pub enum End {
    Over(Box<Job>),
    /// Ctrl-C: the job goes on.
    Detached,
}

/// Between two looks at the job.
const LOOK: Duration = Duration::from_secs(1);
/// A server that is silent for longer is not just restarting.
const PATIENCE: Duration = Duration::from_secs(300);

struct Watch<'a> {
    client: &'a Client,
    id: &'a str,
    output: &'a mut Output,
    display: Display,
    /// The newest event that was shown.
    shown: i64,
    silent_since: Option<Instant>,
}

/// Shows a job until it is over or Ctrl-C is pressed.
///
/// # Errors
/// What the server refuses, and a server that does not answer for five minutes.
pub fn watch(client: &Client, id: &str, output: &mut Output) -> Outcome<End> {
    let display = Display::new(output);
    let mut watch = Watch { client, id, output, display, shown: 0, silent_since: None };
    let end = watch.run();
    watch.display.clear();
    end
}

impl Watch<'_> {
    fn run(&mut self) -> Outcome<End> {
        let news = follow(self.client, self.id)?;
        let mut look = Instant::now();
        loop {
            match news.recv_timeout(look.saturating_duration_since(Instant::now())) {
                Ok(News::Interrupted) => return Ok(End::Detached),
                Ok(News::Event(event)) => {
                    self.hear(&event)?;
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(LOOK),
            }
            if let Some(job) = self.look()? {
                return Ok(End::Over(Box::new(job)));
            }
            look = Instant::now() + LOOK;
        }
    }

    /// `progress` has no number of its own and tells of the moment; all other events are history.
    fn hear(&mut self, event: &sse::Event) -> Outcome {
        if event.kind == "progress" {
            return match serde_json::from_str(&event.data) {
                Ok(progress) => self.display.running(&progress, self.output),
                Err(_) => Ok(()),
            };
        }
        match read(event) {
            Some(event) => self.show(&event),
            None => Ok(()),
        }
    }

    /// The job, once it is over and all its events were shown.
    fn look(&mut self) -> Outcome<Option<Job>> {
        let job: Job = match self.client.get(&format!("/jobs/{}", segment(self.id))) {
            Ok(job) => job,
            Err(Failure::Failed(reason)) => return self.bear(&reason).map(|()| None),
            Err(failure) => return Err(failure),
        };
        self.silent_since = None;
        if job.is_over() {
            self.rest()?;
            return Ok(Some(job));
        }
        match (&job.progress, job.status.as_str()) {
            (Some(progress), "running") => self.display.running(progress, self.output)?,
            _ => self.display.waiting(&describe(&job), self.output)?,
        }
        Ok(None)
    }

    /// A server that restarts is waited for.
    fn bear(&mut self, reason: &str) -> Outcome {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            let back = format!("the job may still be there: espalier jobs watch {}", self.id);
            return Err(Failure::failed(format!("{reason}\n{back}")));
        }
        self.display.waiting("the server does not answer: waiting for it", self.output)
    }

    /// The events that the stream did not bring.
    fn rest(&mut self) -> Outcome {
        loop {
            let path = format!("/jobs/{}/events?after={}", segment(self.id), self.shown);
            let events: List<Event> = self.client.get(&path)?;
            if events.data.iter().all(|event| event.sequence <= self.shown) {
                return Ok(());
            }
            for event in &events.data {
                self.show(event)?;
            }
        }
    }

    fn show(&mut self, event: &Event) -> Outcome {
        if event.sequence <= self.shown {
            return Ok(());
        }
        self.shown = event.sequence;
        match event.kind.as_str() {
            "metrics" => match metrics::row(&event.data) {
                Some(line) => self.display.line(&line, self.output),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// What waits for what.
pub fn describe(job: &Job) -> String {
    match (job.status.as_str(), job.queue_place) {
        ("queued", Some(0)) => "queued: next in line".to_string(),
        ("queued", Some(1)) => "queued: 1 job before it".to_string(),
        ("queued", Some(place)) => format!("queued: {place} jobs before it"),
        ("paused", _) => format!("paused: espalier jobs resume {}", job.id),
        ("running", _) => "running: preparing the data".to_string(),
        (status, _) => status.to_string(),
    }
}

/// The stream names the sequence as its id and the kind as its event; the data is the event's.
fn read(event: &sse::Event) -> Option<Event> {
    Some(Event {
        sequence: event.id.as_deref()?.parse().ok()?,
        kind: event.kind.clone(),
        data: serde_json::from_str(&event.data).ok()?,
        created_at: String::new(),
    })
}
