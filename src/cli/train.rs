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

#[derive(Args)]
pub struct TrainArgs {
    /// Dataset file: CSV, TSV, JSON, JSON lines, Parquet, xlsx, CoNLL, FASTA or fastText, also as .gz or .zip
    file: PathBuf,

    #[command(flatten)]
    job_flags: JobFlags,

    /// Validation dataset file; by default a fraction of FILE is held out. FILE itself, where a column of it says which rows are those of
    /// validation
    #[arg(long, value_name = "FILE", help_heading = "Job")]
    validation_file: Option<PathBuf>,

    /// Watch the job until it finishes; the default
    #[arg(long, conflicts_with = "detach")]
    wait: bool,

    /// Print the job's id and exit without watching the job
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

/// Adds a hint at `--on-bad-rows` to errors of rows.
fn submission_error(problem: &Problem, file: &str) -> CliError {
    match problem.to_error(Some(file)) {
        CliError::InvalidInput(text) if problem.errors.iter().any(|error| error.line.is_some()) => {
            CliError::InvalidInput(format!(
                "{}\n(--on-bad-rows skip leaves them out)",
                flag_advice::replace_fields_by_flags(&text)
            ))
        }
        CliError::InvalidInput(text) => CliError::InvalidInput(flag_advice::replace_fields_by_flags(&text)),
        error => error,
    }
}
