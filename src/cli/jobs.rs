//! `espalier jobs …`: what was asked to be trained.

use super::client::{Client, Remote, segment};
use super::failure::Outcome;
use super::output::Output;
use super::views::{Event, Job, List, kind, moment, settings};
use super::{metrics, train, watch};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::http::Method;

#[derive(Args)]
pub struct Jobs {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum Command {
    /// The newest jobs
    List(Page),
    /// One job: what was asked, how far it is, what came of it
    Show { id: String },
    /// Follow a job to its end; Ctrl-C leaves it running
    Watch { id: String },
    /// What happened to a job, in order
    Events { id: String },
    /// End a job; nothing is published
    Cancel { id: String },
    /// Stop a job where it is, to be resumed later
    Pause { id: String },
    /// Go on with a paused job
    Resume { id: String },
}

#[derive(Args)]
pub struct Page {
    /// How many
    #[arg(long, default_value = "20")]
    pub limit: u32,

    /// Only what is older than this one: the next page
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,

    /// Only jobs of this status
    #[arg(long)]
    pub status: Option<String>,
}

pub fn run(jobs: &Jobs) -> Outcome {
    let (client, mut output) = (jobs.remote.client()?, jobs.remote.output());
    match &jobs.command {
        Command::List(page) => list(&client, page, &mut output),
        Command::Show { id } => show(&client, id, &mut output),
        Command::Watch { id } => train::attend(&client, id, &mut output),
        Command::Events { id } => events(&client, id, &mut output),
        Command::Cancel { id } => ask(&client, id, "cancel", &mut output),
        Command::Pause { id } => ask(&client, id, "pause", &mut output),
        Command::Resume { id } => ask(&client, id, "resume", &mut output),
    }
}

fn list(client: &Client, page: &Page, output: &mut Output) -> Outcome {
    let status = page.status.as_deref().map(|status| format!("&status={}", segment(status))).unwrap_or_default();
    let path = format!("/jobs?limit={}{}{status}", page.limit, after(page.after.as_deref()));
    let whole: Value = client.get(&path)?;
    output.result(&whole)?;
    let jobs: List<Job> = client.shaped(whole)?;
    let mut rows = vec![["id", "name", "status", "step", "created"].map(String::from).to_vec()];
    for job in &jobs.data {
        let step = job.progress.as_ref().map(|at| format!("{}/{}", at.step, at.total_steps)).unwrap_or_default();
        let name = job.name.clone().unwrap_or_default();
        rows.push(vec![job.id.clone(), name, job.status.clone(), step, moment(&job.created_at)]);
    }
    output.table(&rows)?;
    more("jobs", jobs.next.as_deref(), output)
}

/// The query that asks for what comes after.
pub fn after(id: Option<&str>) -> String {
    id.map(|id| format!("&after={}", segment(id))).unwrap_or_default()
}

/// How to see what did not fit on the page.
pub fn more(list: &str, next: Option<&str>, output: &mut Output) -> Outcome {
    match next {
        Some(next) => output.line(format!("there are more: espalier {list} list --after {next}")),
        None => Ok(()),
    }
}

fn show(client: &Client, id: &str, output: &mut Output) -> Outcome {
    let whole: Value = client.get(&path(id))?;
    output.result(&whole)?;
    let job: Job = client.shaped(whole)?;
    let mut rows = vec![
        ("id", job.id.clone()),
        ("name", job.name.clone().unwrap_or_default()),
        ("status", watch::describe(&job)),
        ("wish", job.wish.clone().unwrap_or_default()),
        ("task", kind(&job.task).to_string()),
        ("method", settings(&job.method)),
        ("hyperparameters", settings(&job.hyperparameters)),
        ("attempt", job.attempt.to_string()),
        ("created", moment(&job.created_at)),
        ("started", job.started_at.as_deref().map(moment).unwrap_or_default()),
        ("finished", job.finished_at.as_deref().map(moment).unwrap_or_default()),
        ("dataset", job.dataset_id.clone().unwrap_or_default()),
        ("adapter", job.adapter_id.clone().unwrap_or_default()),
        ("error", job.error.as_ref().map(|error| error.detail.clone()).unwrap_or_default()),
    ];
    if let Some(at) = &job.progress {
        rows.push(("progress", format!("step {}/{}, epoch {:.2}", at.step, at.total_steps, at.epoch)));
    }
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        output.line(format!("{name:<16}{value}"))?;
    }
    match &job.metrics {
        Some(figures) => output.line("").and_then(|()| output.table(&metrics::table(figures))),
        None => Ok(()),
    }
}

fn events(client: &Client, id: &str, output: &mut Output) -> Outcome {
    let mut all: Vec<Value> = Vec::new();
    let mut last = 0;
    loop {
        let page: List<Value> = client.get(&format!("{}/events?after={last}", path(id)))?;
        let events: Vec<Event> = client.shaped(Value::Array(page.data.clone()))?;
        let fresh = events.iter().filter(|event| event.sequence > last).count();
        for event in &events {
            let text = metrics::row(&event.data).unwrap_or_else(|| event.data.to_string());
            output.line(format!("{}  {:<8}  {text}", moment(&event.created_at), event.kind))?;
            last = last.max(event.sequence);
        }
        all.extend(page.data);
        if fresh == 0 || page.next.is_none() {
            return output.result(&json!({"data": all}));
        }
    }
}

fn ask(client: &Client, id: &str, what: &str, output: &mut Output) -> Outcome {
    let whole = client.call(Method::POST, &format!("{}/{what}", path(id)))?;
    output.result(&whole)?;
    let job: Job = client.shaped(whole)?;
    match job.wish.as_deref() {
        Some(wish) => output.line(format!("job {} is {}: it will {wish} at its next step", job.id, job.status)),
        None => output.line(format!("job {} is {}", job.id, job.status)),
    }
}

fn path(id: &str) -> String {
    format!("/jobs/{}", segment(id))
}
