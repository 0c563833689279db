//! `espalier adapters …`: lists, shows, downloads, imports, activates and deletes adapters.

use super::api_types::{format_settings, format_timestamp, string_field, type_name};
use super::client::{Client, ClientArgs, encode_path_segment, read_problem};
use super::error::{CliError, CliResult};
use super::output::{Output, format_bytes};
use super::pagination::{ListResponse, PageArgs, print_next_page_hint};
use super::upload::{FileUpload, MultipartForm};
use super::{job_metrics, usage_hints};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use ureq::http::Method;
use ureq::http::header::{ACCEPT, CONTENT_TYPE};

#[derive(Args)]
pub struct AdaptersArgs {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    remote: ClientArgs,
}

/// Information that PEFT's files do not contain, or that overrides them.
#[derive(Args, Serialize)]
#[group(skip)]
struct ImportOptions {
    /// Name that refers to the adapter
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,

    /// Labels in the order of the head's rows, separated by commas
    #[arg(long, value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,

    /// Base model that the adapter was trained on; overrides the adapter's configuration
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,

    /// Pooling of the head's input, such as mean or cls; transformers' classification models use cls, the default for them
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pooling: Option<String>,

    /// Maximum number of tokens per input; longer inputs are truncated
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// List adapters, newest first
    List(PageArgs),
    /// Show an adapter: method, labels and metrics
    Show { adapter: String },
    /// Download an adapter as a zip of PEFT files
    Download {
        adapter: String,
        /// File to write [default: ADAPTER.zip]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Import an adapter of PEFT or AdapterHub: a zip or .tar.gz, a repository on the Hugging Face Hub (hub:owner/name@revision), or a
    /// path below the server's --adapter-import-folder (path:folder/adapter)
    #[command(visible_alias = "import")]
    Upload {
        #[arg(value_name = "FILE|SOURCE")]
        source: String,
        #[command(flatten)]
        options: ImportOptions,
    },
    /// Point an adapter's name to this version (NAME@VERSION or an id)
    Activate { adapter: String },
    /// Delete an adapter
    Delete { adapter: String },
}

pub fn run(args: &AdaptersArgs) -> CliResult {
    let (client, mut output) = (args.remote.client()?, args.remote.output());
    match &args.command {
        Command::List(page) => list(&client, page, &mut output),
        Command::Show { adapter } => show(&client, adapter, &mut output),
        Command::Download { adapter, output: file } => download(&client, adapter, file.as_deref(), &mut output),
        Command::Upload { source, options } => import(&client, source, options, &mut output),
        Command::Activate { adapter } => {
            let path = format!("{}/activate", adapter_path(adapter));
            let response = client.request_json(Method::POST, &path)?;
            output.write_json(&response)?;
            let (name, version) = (string_field(&response, "name"), string_field(&response, "version"));
            output.write_line(format!("{name} is now {}", short_version(&version)))
        }
        Command::Delete { adapter } => {
            client.request_json(Method::DELETE, &adapter_path(adapter))?;
            output.write_json(&json!({"deleted": adapter}))?;
            output.write_line(format!("{adapter} is deleted"))
        }
    }
}

fn list(client: &Client, page: &PageArgs, output: &mut Output) -> CliResult {
    let response: Value = client.get(&format!("/adapters?{}", page.to_query()))?;
    output.write_json(&response)?;
    let adapters: ListResponse<Value> = client.decode(response)?;
    let mut rows =
        vec![["id", "name", "version", "current", "method", "labels", "size", "created"].map(String::from).to_vec()];
    for adapter in &adapters.data {
        rows.push(vec![
            string_field(adapter, "id"),
            string_field(adapter, "name"),
            short_version(&string_field(adapter, "version")),
            if adapter["is_current"] == json!(true) { "yes" } else { "" }.to_string(),
            type_name(&adapter["method"]).to_string(),
            adapter["labels"].as_array().map_or(0, Vec::len).to_string(),
            format_bytes(adapter["bytes"].as_u64().unwrap_or(0)),
            format_timestamp(&string_field(adapter, "created_at")),
        ]);
    }
    output.write_table(&rows)?;
    print_next_page_hint("adapters", adapters.next.as_deref(), output)
}

fn show(client: &Client, adapter: &str, output: &mut Output) -> CliResult {
    let response: Value = client.get(&adapter_path(adapter))?;
    output.write_json(&response)?;
    let labels: Vec<&str> = response["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rows = [
        ("id", string_field(&response, "id")),
        ("name", string_field(&response, "name")),
        ("version", string_field(&response, "version")),
        ("task", type_name(&response["task"]).to_string()),
        ("method", format_settings(&response["method"])),
        ("labels", format!("{}: {}", labels.len(), labels.join(", "))),
        ("size", format_bytes(response["bytes"].as_u64().unwrap_or(0))),
        ("base", describe_base(&response)),
        ("job", string_field(&response, "job_id")),
        ("created", format_timestamp(&string_field(&response, "created_at"))),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        output.write_line(format!("{name:<16}{value}"))?;
    }
    if response["metrics"].is_object() {
        output.write_line("")?;
        output.write_table(&job_metrics::metrics_table(&response["metrics"]))?;
    }
    Ok(())
}

fn download(client: &Client, adapter: &str, file: Option<&Path>, output: &mut Output) -> CliResult {
    let file = file.map_or_else(|| PathBuf::from(format!("{}.zip", encode_path_segment(adapter))), Path::to_path_buf);
    let mut request = client.request(Method::GET, &format!("{}/download", adapter_path(adapter)));
    if let Some(headers) = request.headers_mut() {
        headers.insert(ACCEPT, ureq::http::HeaderValue::from_static("*/*"));
    }
    let response = client.send(request, (), None)?;
    if !response.status().is_success() {
        return Err(read_problem(response).to_error(None));
    }
    let write_error = |error: io::Error| CliError::failed(format!("{} cannot be written: {error}", file.display()));
    // Writes to a temporary file and renames it, so that an interrupted download leaves no incomplete zip.
    let dir = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut temp_file = tempfile::Builder::new().permissions(permissions).tempfile_in(dir).map_err(write_error)?;
    let bytes = io::copy(&mut response.into_body().into_reader(), temp_file.as_file_mut()).map_err(write_error)?;
    temp_file.persist(&file).map_err(|error| write_error(error.error))?;
    output.write_json(&json!({"file": file, "bytes": bytes}))?;
    output.write_line(format!("{}: {}", file.display(), format_bytes(bytes)))
}

fn import(client: &Client, source: &str, options: &ImportOptions, output: &mut Output) -> CliResult {
    let mut body =
        serde_json::to_value(options).map_err(|error| CliError::failed(format!("building the request: {error}")))?;
    let response = match source.starts_with("hub:") || source.starts_with("path:") {
        true => {
            body["source"] = json!(source);
            let request = client.request(Method::POST, "/adapters").header(CONTENT_TYPE, "application/json");
            // Without a timeout: the server downloads the adapter.
            client.send(request, body.to_string(), None)?
        }
        false => {
            let file = FileUpload::open(Path::new(source))?;
            client.upload("/adapters", MultipartForm::new("adapter", file, ("options", &body.to_string())), output)?
        }
    };
    if !response.status().is_success() {
        return Err(read_problem(response).to_error(Some(source)));
    }
    let adapter: Value = client.read_json(response)?;
    output.write_json(&adapter)?;
    output.write_line(format!("adapter {} ({})", string_field(&adapter, "id"), string_field(&adapter, "version")))?;
    let reference = options.name.clone().unwrap_or_else(|| string_field(&adapter, "id"));
    usage_hints::print_usage_hints(client, &reference, &adapter, output)
}

fn adapter_path(adapter: &str) -> String {
    format!("/adapters/{}", encode_path_segment(adapter))
}

fn describe_base(adapter: &Value) -> String {
    match adapter["base_verified"].as_bool() {
        Some(false) => "checked by names and shapes: the files have no fingerprint".to_string(),
        _ => string_field(adapter, "base"),
    }
}

/// First digits of a version, which identify it.
fn short_version(version: &str) -> String {
    version.trim_start_matches("sha256:").chars().take(12).collect()
}
