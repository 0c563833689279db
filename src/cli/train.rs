//! `espalier train FILE`: a file becomes an adapter, and the command shows how.

use super::api_types::{Dataset, Job};
use super::client::{Client, ClientArgs, read_problem};
use super::error::{CliError, CliResult};
use super::job_flags::JobFlags;
use super::job_watch::{self, WatchOutcome, watch};
use super::output::Output;
use super::problem::Problem;
use super::upload::{FileUpload, MultipartForm};
use super::{dataset_report, metrics, usage_hints};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Args)]
pub struct TrainArgs {
    /// Dataset: .csv, .tsv or .jsonl
    file: PathBuf,

    #[command(flatten)]
    job_flags: JobFlags,

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
    remote: ClientArgs,
}

pub fn run(args: &TrainArgs) -> CliResult {
    let (client, mut output) = (args.remote.client()?, args.remote.output());
    let mut job = args.job_flags.to_job_json()?;
    let upload = FileUpload::open(&args.file)?;
    if let Some(file) = &args.validation_file {
        let dataset = upload_dataset(&client, FileUpload::open(file)?, &job, &mut output)?;
        job.insert("validation".to_string(), json!({"dataset_id": dataset.id}));
    }
    let job = submit(&client, upload, &job, &mut output)?;
    if args.detach {
        output.write_line(format!("job {}: {}", job.id, job_watch::describe_status(&job)))?;
        output.write_line(format!(
            "follow it with: espalier jobs watch {}{}",
            job.id,
            usage_hints::server_flag(&client)
        ))?;
        return output.write_json(&json!({"id": job.id, "status": job.status}));
    }
    watch_to_end(&client, &job.id, &mut output)
}

/// Watches a job to its end and shows what came of it.
pub fn watch_to_end(client: &Client, id: &str, output: &mut Output) -> CliResult {
    match watch(client, id, output)? {
        WatchOutcome::Finished(job) => report_result(client, &job, output),
        WatchOutcome::Detached => {
            output.write_line("")?;
            output.write_line("the job goes on without you; come back to it with:")?;
            output.write_line(format!("  espalier jobs watch {id}{}", usage_hints::server_flag(client)))
        }
    }
}

fn upload_dataset(
    client: &Client,
    upload: FileUpload,
    job: &Map<String, Value>,
    output: &mut Output,
) -> CliResult<Dataset> {
    let name = upload.path.display().to_string();
    let options: Map<String, Value> = ["task", "columns", "on_bad_rows"]
        .iter()
        .filter_map(|field| Some((field.to_string(), job.get(*field)?.clone())))
        .collect();
    let options = Value::Object(options).to_string();
    let response = client.upload("/datasets", MultipartForm::new("dataset", upload, ("options", &options)), output)?;
    if !response.status().is_success() {
        return Err(submission_error(&read_problem(response), &name));
    }
    let dataset: Dataset = client.read_json(response)?;
    dataset_report::print_report(&dataset.report, &name, output)?;
    Ok(dataset)
}

fn submit(client: &Client, upload: FileUpload, job: &Map<String, Value>, output: &mut Output) -> CliResult<Job> {
    let name = upload.path.display().to_string();
    let job = Value::Object(job.clone()).to_string();
    let response = client.upload("/jobs", MultipartForm::new("dataset", upload, ("job", &job)), output)?;
    if !response.status().is_success() {
        return Err(submission_error(&read_problem(response), &name));
    }
    let job: Job = client.read_json(response)?;
    if let Some(dataset) = &job.dataset {
        dataset_report::print_report(&dataset.report, &name, output)?;
    }
    Ok(job)
}

/// Bad rows by file and line, and the flag that leaves them out.
fn submission_error(problem: &Problem, file: &str) -> CliError {
    match problem.to_error(Some(file)) {
        CliError::InvalidInput(text) if problem.errors.iter().any(|error| error.line.is_some()) => {
            CliError::InvalidInput(format!("{text}\n(here that is --on-bad-rows skip)"))
        }
        failure => failure,
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
    if let Some(job_metrics) = &job.metrics {
        output.write_line("")?;
        output.write_table(&metrics::metrics_table(job_metrics))?;
        let classes = metrics::worst_classes(job_metrics);
        if !classes.is_empty() {
            output.write_line("")?;
            output.write_line("the labels that were hardest to tell:")?;
            output.write_table(&classes)?;
        }
    }
    let Some(adapter) = job.adapter_reference() else { return Ok(()) };
    output.write_line("")?;
    usage_hints::print_usage_hints(client, adapter, job_json, output)
}
