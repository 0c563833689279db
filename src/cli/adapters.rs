//! `espalier adapters …`: what jobs have made, and what was trained elsewhere.

use super::client::{Client, Remote, problem, segment};
use super::failure::{Failure, Outcome};
use super::jobs::{Page, after, more};
use super::output::{Output, size};
use super::upload::{Form, Upload};
use super::views::{List, kind, moment, settings};
use super::{metrics, shell};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use ureq::http::Method;
use ureq::http::header::ACCEPT;

#[derive(Args)]
pub struct Adapters {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    remote: Remote,
}

/// What a zip of PEFT's files cannot say, or says otherwise.
#[derive(Args, Serialize)]
#[group(skip)]
struct Options {
    /// Name that will point to it
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,

    /// Labels in the order of the head's rows, separated by commas
    #[arg(long, value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,

    /// Base model that it was trained on
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,

    /// How its head reads a sequence: mean, or cls as classification models of transformers do
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pooling: Option<String>,

    /// Tokens; longer inputs are truncated
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// The newest adapters
    List(Page),
    /// One adapter: what it was made of and how good it is
    Show { adapter: String },
    /// Take an adapter home as a zip of PEFT's files
    Download {
        adapter: String,
        /// File to write [default: the adapter's name and .zip]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Bring an adapter: a zip of PEFT's files, from here or from elsewhere
    Upload {
        file: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Delete an adapter for good
    Delete { adapter: String },
}

pub fn run(adapters: &Adapters) -> Outcome {
    let (client, mut output) = (adapters.remote.client()?, adapters.remote.output());
    match &adapters.command {
        Command::List(page) => list(&client, page, &mut output),
        Command::Show { adapter } => show(&client, adapter, &mut output),
        Command::Download { adapter, output: file } => download(&client, adapter, file.as_deref(), &mut output),
        Command::Upload { file, options } => upload(&client, file, options, &mut output),
        Command::Delete { adapter } => {
            client.call(Method::DELETE, &path(adapter))?;
            output.result(&json!({"deleted": adapter}))?;
            output.line(format!("{adapter} is deleted"))
        }
    }
}

fn list(client: &Client, page: &Page, output: &mut Output) -> Outcome {
    let whole: Value = client.get(&format!("/adapters?limit={}{}", page.limit, after(page.after.as_deref())))?;
    output.result(&whole)?;
    let adapters: List<Value> = client.shaped(whole)?;
    let mut rows = vec![["id", "name", "version", "method", "labels", "size", "created"].map(String::from).to_vec()];
    for adapter in &adapters.data {
        rows.push(vec![
            text(adapter, "id"),
            text(adapter, "name"),
            short(&text(adapter, "version")),
            kind(&adapter["method"]).to_string(),
            adapter["labels"].as_array().map_or(0, Vec::len).to_string(),
            size(adapter["bytes"].as_u64().unwrap_or(0)),
            moment(&text(adapter, "created_at")),
        ]);
    }
    output.table(&rows)?;
    more("adapters", adapters.next.as_deref(), output)
}

fn show(client: &Client, adapter: &str, output: &mut Output) -> Outcome {
    let whole: Value = client.get(&path(adapter))?;
    output.result(&whole)?;
    let labels: Vec<&str> = whole["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rows = [
        ("id", text(&whole, "id")),
        ("name", text(&whole, "name")),
        ("version", text(&whole, "version")),
        ("task", kind(&whole["task"]).to_string()),
        ("method", settings(&whole["method"])),
        ("labels", format!("{}: {}", labels.len(), labels.join(", "))),
        ("size", size(whole["bytes"].as_u64().unwrap_or(0))),
        ("base", base(&whole)),
        ("job", text(&whole, "job_id")),
        ("created", moment(&text(&whole, "created_at"))),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        output.line(format!("{name:<16}{value}"))?;
    }
    if whole["metrics"].is_object() {
        output.line("")?;
        output.table(&metrics::table(&whole["metrics"]))?;
    }
    Ok(())
}

fn download(client: &Client, adapter: &str, file: Option<&Path>, output: &mut Output) -> Outcome {
    let file = file.map_or_else(|| PathBuf::from(format!("{}.zip", segment(adapter))), Path::to_path_buf);
    let mut request = client.request(Method::GET, &format!("{}/download", path(adapter)));
    if let Some(headers) = request.headers_mut() {
        headers.insert(ACCEPT, ureq::http::HeaderValue::from_static("*/*"));
    }
    let response = client.send(request, (), None)?;
    if !response.status().is_success() {
        return Err(problem(response).failure(None));
    }
    let cannot = |error: io::Error| Failure::failed(format!("{} cannot be written: {error}", file.display()));
    // Written beside its place first, so that a broken download does not look like an adapter.
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let ordinary = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut part = tempfile::Builder::new().permissions(ordinary).tempfile_in(folder).map_err(cannot)?;
    let bytes = io::copy(&mut response.into_body().into_reader(), part.as_file_mut()).map_err(cannot)?;
    part.persist(&file).map_err(|error| cannot(error.error))?;
    output.result(&json!({"file": file, "bytes": bytes}))?;
    output.line(format!("{}: {}", file.display(), size(bytes)))
}

fn upload(client: &Client, file: &Path, options: &Options, output: &mut Output) -> Outcome {
    let json =
        serde_json::to_string(options).map_err(|error| Failure::failed(format!("building the request: {error}")))?;
    let form = Form::new("adapter", Upload::open(file)?, ("options", &json));
    let response = client.upload("/adapters", form, output)?;
    if !response.status().is_success() {
        return Err(problem(response).failure(Some(&file.display().to_string())));
    }
    let whole: Value = client.read(response)?;
    output.result(&whole)?;
    output.line(format!("adapter {} ({})", text(&whole, "id"), text(&whole, "version")))?;
    let reference = options.name.clone().unwrap_or_else(|| text(&whole, "id"));
    shell::show(client, &reference, &whole, output)
}

fn path(adapter: &str) -> String {
    format!("/adapters/{}", segment(adapter))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_string()
}

fn base(adapter: &Value) -> String {
    match adapter["base_verified"].as_bool() {
        Some(false) => "by its name and shapes: the files carry no fingerprint".to_string(),
        _ => text(adapter, "base"),
    }
}

/// The first digits of a version: enough to ask for it.
fn short(version: &str) -> String {
    version.trim_start_matches("sha256:").chars().take(12).collect()
}
