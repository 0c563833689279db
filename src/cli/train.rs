//! `espalier train FILE`: uploads a dataset, creates a job and watches it.

use super::api_types::{Dataset, Job};
use super::client::{Client, ClientArgs, read_problem};
use super::error::{CliError, CliResult, Problem};
use super::job_flags::JobFlags;
use super::job_watch::{describe_status, watch_to_end};
use super::output::Output;
use super::upload::{FileUpload, MultipartForm};
use super::{dataset_report, flag_advice, usage_hints};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use ureq::Body;
use ureq::http::Response;

#[derive(Args)]
pub struct TrainArgs {
    /// Dataset file: CSV, TSV, JSON, JSON lines, Parquet, xlsx, CoNLL, FASTA or fastText, also as .gz or .zip
    file: PathBuf,

    #[command(flatten)]
    job_flags: JobFlags,

    /// Validation dataset file; by default a fraction of FILE is held out. FILE itself, where a column of it says which rows are those of
    /// validation
    #[arg(long, value_name = "FILE", help_heading = "Job", conflicts_with = "validation_fraction")]
    validation_file: Option<PathBuf>,

    /// Watch the job until it finishes; the default
    #[arg(long, conflicts_with = "detach")]
    wait: bool,

    /// Print the job's id and exit without watching the job
    #[arg(long)]
    detach: bool,

    /// Check the file and print its report; no job is created and nothing is stored
    #[arg(long, conflicts_with_all = ["wait", "detach", "validation_file"])]
    validate_only: bool,

    #[command(flatten)]
    remote: ClientArgs,
}

pub fn run(args: &TrainArgs) -> CliResult {
    let (client, mut output) = (args.remote.client()?, args.remote.output());
    let mut job = args.job_flags.to_job_json()?;
    let upload = FileUpload::open(&args.file)?;
    if args.validate_only {
        return validate_only(&client, upload, &job, &mut output);
    }
    if let Some(file) = &args.validation_file {
        let split = (*file == args.file).then_some("validation");
        let dataset = upload_dataset(&client, FileUpload::open(file)?, &job, split, &mut output)?;
        job.insert("validation".to_string(), json!({"dataset_id": dataset.id}));
    }
    let job = submit(&client, upload, &job, &mut output)?;
    if args.detach {
        output.write_line(format!("job {}: {}", job.id, describe_status(&job)))?;
        output.write_line(format!(
            "watch it with: espalier jobs watch {}{}",
            job.id,
            usage_hints::server_flag(&client)
        ))?;
        return output.write_json(&json!({"id": job.id, "status": job.status}));
    }
    watch_to_end(&client, &job.id, &mut output)
}

fn upload_dataset(
    client: &Client,
    upload: FileUpload,
    job: &Map<String, Value>,
    split: Option<&str>,
    output: &mut Output,
) -> CliResult<Dataset> {
    let name = upload.path.display().to_string();
    let fields = [
        "task",
        "columns",
        "on_bad_rows",
        "label_names",
        "label_separator",
        "decimal",
        "format",
        "separator",
        "quoting",
        "encoding",
    ];
    let mut options: Map<String, Value> =
        fields.iter().filter_map(|field| Some((field.to_string(), job.get(*field)?.clone()))).collect();
    if let Some(split) = split {
        options.insert("split".to_string(), json!(split));
    }
    let options = Value::Object(options).to_string();
    let response = client.upload("/datasets", MultipartForm::new("dataset", upload, ("options", &options)), output)?;
    if !response.status().is_success() {
        return Err(submission_error(&read_problem(response), &name));
    }
    let dataset: Dataset = client.read_json(response)?;
    dataset_report::print_report(&dataset.report, &name, output)?;
    Ok(dataset)
}

fn validate_only(client: &Client, upload: FileUpload, job: &Map<String, Value>, output: &mut Output) -> CliResult {
    let name = upload.path.display().to_string();
    let answer: Value = client.read_json(send_job(client, "/jobs?validate_only=true", upload, job, output)?)?;
    let report = client.decode(answer["report"].clone())?;
    dataset_report::print_report(&report, &name, output)?;
    output.write_json(&answer)
}

fn submit(client: &Client, upload: FileUpload, job: &Map<String, Value>, output: &mut Output) -> CliResult<Job> {
    let name = upload.path.display().to_string();
    let job: Job = client.read_json(send_job(client, "/jobs", upload, job, output)?)?;
    if let Some(dataset) = &job.dataset {
        dataset_report::print_report(&dataset.report, &name, output)?;
    }
    Ok(job)
}

/// Sends a job with its file.
fn send_job(
    client: &Client,
    path: &str,
    upload: FileUpload,
    job: &Map<String, Value>,
    output: &Output,
) -> CliResult<Response<Body>> {
    let name = upload.path.display().to_string();
    let job = Value::Object(job.clone()).to_string();
    let response = client.upload(path, MultipartForm::new("dataset", upload, ("job", &job)), output)?;
    if !response.status().is_success() {
        return Err(submission_error(&read_problem(response), &name));
    }
    Ok(response)
}

/// Error with flags in place of the fields of a request.
fn submission_error(problem: &Problem, file: &str) -> CliError {
    match problem.to_error(Some(file)) {
        CliError::InvalidInput(text) => CliError::InvalidInput(flag_advice::replace_fields_by_flags(&text)),
        error => error,
    }
}
