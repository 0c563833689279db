//! `espalier train FILE`: a file becomes an adapter, and the command shows how.

use super::client::{Client, Remote, problem};
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::problem::Problem;
use super::request::Flags;
use super::upload::{Form, Upload};
use super::views::{Dataset, Job};
use super::watch::{self, End, watch};
use super::{metrics, report, shell};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Args)]
pub struct Train {
    /// Dataset: .csv, .tsv or .jsonl
    file: PathBuf,

    #[command(flatten)]
    flags: Flags,

    /// Dataset to validate on, instead of a part of FILE
    #[arg(long, value_name = "FILE", help_heading = "Job")]
    validation_file: Option<PathBuf>,

    /// Follow the job to its end; this is what happens without --detach
    #[arg(long, conflicts_with = "detach")]
    wait: bool,

    /// Do not wait for the end: print the job's id
    #[arg(long)]
    detach: bool,

    #[command(flatten)]
    remote: Remote,
}

pub fn run(train: &Train) -> Outcome {
    let (client, mut output) = (train.remote.client()?, train.remote.output());
    let mut job = train.flags.job()?;
    let upload = Upload::open(&train.file)?;
    if let Some(file) = &train.validation_file {
        let dataset = send_dataset(&client, Upload::open(file)?, &job, &mut output)?;
        job.insert("validation".to_string(), json!({"dataset_id": dataset.id}));
    }
    let job = submit(&client, upload, &job, &mut output)?;
    if train.detach {
        output.line(format!("job {}: {}", job.id, watch::describe(&job)))?;
        output.line(format!("follow it with: espalier jobs watch {}{}", job.id, shell::server(&client)))?;
        return output.result(&json!({"id": job.id, "status": job.status}));
    }
    attend(&client, &job.id, &mut output)
}

/// Watches a job to its end and shows what came of it.
pub fn attend(client: &Client, id: &str, output: &mut Output) -> Outcome {
    match watch(client, id, output)? {
        End::Over(job) => conclude(client, &job, output),
        End::Detached => {
            output.line("")?;
            output.line("the job goes on without you; come back to it with:")?;
            output.line(format!("  espalier jobs watch {id}{}", shell::server(client)))
        }
    }
}

fn send_dataset(client: &Client, upload: Upload, job: &Map<String, Value>, output: &mut Output) -> Outcome<Dataset> {
    let name = upload.path.display().to_string();
    let options: Map<String, Value> = ["task", "columns", "on_bad_rows"]
        .iter()
        .filter_map(|field| Some((field.to_string(), job.get(*field)?.clone())))
        .collect();
    let options = Value::Object(options).to_string();
    let response = client.upload("/datasets", Form::new("dataset", upload, ("options", &options)), output)?;
    if !response.status().is_success() {
        return Err(refused(&problem(response), &name));
    }
    let dataset: Dataset = client.read(response)?;
    report::show(&dataset.report, &name, output)?;
    Ok(dataset)
}

fn submit(client: &Client, upload: Upload, job: &Map<String, Value>, output: &mut Output) -> Outcome<Job> {
    let name = upload.path.display().to_string();
    let job = Value::Object(job.clone()).to_string();
    let response = client.upload("/jobs", Form::new("dataset", upload, ("job", &job)), output)?;
    if !response.status().is_success() {
        return Err(refused(&problem(response), &name));
    }
    let job: Job = client.read(response)?;
    if let Some(dataset) = &job.dataset {
        report::show(&dataset.report, &name, output)?;
    }
    Ok(job)
}

/// Bad rows by file and line, and the flag that leaves them out.
fn refused(problem: &Problem, file: &str) -> Failure {
    match problem.failure(Some(file)) {
        Failure::BadInput(text) if problem.errors.iter().any(|fault| fault.line.is_some()) => {
            Failure::BadInput(format!("{text}\n(here that is --on-bad-rows skip)"))
        }
        failure => failure,
    }
}

fn conclude(client: &Client, job: &Job, output: &mut Output) -> Outcome {
    let whole: Value = client.get(&format!("/jobs/{}", job.id))?;
    output.result(&whole)?;
    match (job.status.as_str(), &job.error) {
        ("succeeded", _) => show_adapter(client, job, &whole, output),
        (_, Some(error)) => Err(Failure::failed(format!("job {} {}: {}", job.id, job.status, error.detail))),
        (status, None) => Err(Failure::failed(format!("job {} was {status}", job.id))),
    }
}

fn show_adapter(client: &Client, job: &Job, whole: &Value, output: &mut Output) -> Outcome {
    output.line(format!("job {} succeeded", job.id))?;
    if let Some(figures) = &job.metrics {
        output.line("")?;
        output.table(&metrics::table(figures))?;
        let classes = metrics::worst_classes(figures);
        if !classes.is_empty() {
            output.line("")?;
            output.line("the labels that were hardest to tell:")?;
            output.table(&classes)?;
        }
    }
    let Some(adapter) = job.adapter() else { return Ok(()) };
    output.line("")?;
    shell::show(client, adapter, whole, output)
}
