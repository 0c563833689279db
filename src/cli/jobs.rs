//! `espalier jobs …`: lists, shows, watches and controls jobs.

use super::api_types::{Event, Job, format_settings, format_timestamp, type_name};
use super::client::{Client, ClientArgs, encode_path_segment};
use super::error::CliResult;
use super::output::Output;
use super::pagination::{ListResponse, PageArgs, print_next_page_hint};
use super::{job_metrics, job_watch};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::http::Method;

#[derive(Args)]
pub struct JobsArgs {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    remote: ClientArgs,
}

#[derive(Subcommand)]
enum Command {
    /// List jobs, newest first
    List(ListArgs),
    /// Show a job: settings, progress and metrics
    Show { id: String },
    /// Watch a job until it finishes; Ctrl-C leaves it running
    Watch { id: String },
    /// Show the events of a job, oldest first
    Events { id: String },
    /// Cancel a job; no adapter is published
    Cancel { id: String },
    /// Pause a job; a running job writes a checkpoint first
    Pause { id: String },
    /// Resume a paused job from its checkpoint
    Resume { id: String },
    /// Retry a failed job from its last checkpoint
    Retry { id: String },
    /// Delete a finished job with its events; its adapter stays
    Delete { id: String },
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    page: PageArgs,

    /// Show only jobs with this status
    #[arg(long)]
    status: Option<String>,
}

pub fn run(args: &JobsArgs) -> CliResult {
    let (client, mut output) = (args.remote.client()?, args.remote.output());
    match &args.command {
        Command::List(args) => list(&client, args, &mut output),
        Command::Show { id } => show(&client, id, &mut output),
        Command::Watch { id } => job_watch::watch_to_end(&client, id, &mut output),
        Command::Events { id } => events(&client, id, &mut output),
        Command::Cancel { id } => request_action(&client, id, "cancel", &mut output),
        Command::Pause { id } => request_action(&client, id, "pause", &mut output),
        Command::Resume { id } => request_action(&client, id, "resume", &mut output),
        Command::Retry { id } => request_action(&client, id, "retry", &mut output),
        Command::Delete { id } => delete(&client, id, &mut output),
    }
}

fn list(client: &Client, args: &ListArgs, output: &mut Output) -> CliResult {
    let status =
        args.status.as_deref().map(|status| format!("&status={}", encode_path_segment(status))).unwrap_or_default();
    let response: Value = client.get(&format!("/jobs?{}{status}", args.page.to_query()))?;
    output.write_json(&response)?;
    let jobs: ListResponse<Job> = client.decode(response)?;
    let mut rows = vec![["id", "name", "status", "step", "created"].map(String::from).to_vec()];
    for job in &jobs.data {
        let step = job
            .progress
            .as_ref()
            .map(|progress| format!("{}/{}", progress.step, progress.total_steps))
            .unwrap_or_default();
        let name = job.name.clone().unwrap_or_default();
        rows.push(vec![job.id.clone(), name, job.status.clone(), step, format_timestamp(&job.created_at)]);
    }
    output.write_table(&rows)?;
    print_next_page_hint("jobs", jobs.next.as_deref(), output)
}

fn show(client: &Client, id: &str, output: &mut Output) -> CliResult {
    let response: Value = client.get(&job_path(id))?;
    output.write_json(&response)?;
    let job: Job = client.decode(response)?;
    let mut rows = vec![
        ("id", job.id.clone()),
        ("name", job.name.clone().unwrap_or_default()),
        ("status", job_watch::describe_status(&job)),
        ("requested_action", job.requested_action.clone().unwrap_or_default()),
        ("task", type_name(&job.task).to_string()),
        ("method", format_settings(&job.method)),
        ("hyperparameters", format_settings(&job.hyperparameters)),
        ("attempt", job.attempt.to_string()),
        ("created", format_timestamp(&job.created_at)),
        ("started", job.started_at.as_deref().map(format_timestamp).unwrap_or_default()),
        ("finished", job.finished_at.as_deref().map(format_timestamp).unwrap_or_default()),
        ("dataset", job.dataset_id.clone().unwrap_or_default()),
        ("adapter", job.adapter_id.clone().unwrap_or_default()),
        ("error", job.error.as_ref().map(|error| error.detail.clone()).unwrap_or_default()),
    ];
    if let Some(progress) = &job.progress {
        rows.push((
            "progress",
            format!("step {}/{}, epoch {:.2}", progress.step, progress.total_steps, progress.epoch),
        ));
    }
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        output.write_line(format!("{name:<16}{value}"))?;
    }
    match &job.metrics {
        Some(metrics) => output.write_line("").and_then(|()| output.write_table(&job_metrics::metrics_table(metrics))),
        None => Ok(()),
    }
}

fn events(client: &Client, id: &str, output: &mut Output) -> CliResult {
    let mut all_events: Vec<Value> = Vec::new();
    let mut last = 0;
    loop {
        let page: ListResponse<Value> = client.get(&format!("{}/events?after={last}", job_path(id)))?;
        let events: Vec<Event> = client.decode(Value::Array(page.data.clone()))?;
        let new_events = events.iter().filter(|event| event.sequence > last).count();
        for event in &events {
            let text = job_metrics::format_row(&event.data).unwrap_or_else(|| event.data.to_string());
            output.write_line(format!("{}  {:<8}  {text}", format_timestamp(&event.created_at), event.kind))?;
            last = last.max(event.sequence);
        }
        all_events.extend(page.data);
        if new_events == 0 || page.next.is_none() {
            return output.write_json(&json!({"data": all_events}));
        }
    }
}

fn request_action(client: &Client, id: &str, action: &str, output: &mut Output) -> CliResult {
    let response = client.request_json(Method::POST, &format!("{}/{action}", job_path(id)))?;
    output.write_json(&response)?;
    let job: Job = client.decode(response)?;
    match job.requested_action.as_deref() {
        Some(action) => {
            output.write_line(format!("job {} is {}: it will {action} at its next step", job.id, job.status))
        }
        None => output.write_line(format!("job {} is {}", job.id, job.status)),
    }
}

fn delete(client: &Client, id: &str, output: &mut Output) -> CliResult {
    client.request_json(Method::DELETE, &job_path(id))?;
    output.write_json(&json!({"deleted": id}))?;
    output.write_line(format!("job {id} is deleted"))
}

fn job_path(id: &str) -> String {
    format!("/jobs/{}", encode_path_segment(id))
}
