//! `espalier keys …`: creates, lists, rotates and revokes API keys. It needs the key of an administrator.

use super::api_types::{format_timestamp, string_field};
use super::client::{Client, ClientArgs, encode_path_segment};
use super::error::{CliError, CliResult};
use super::output::Output;
use super::pagination::{ListResponse, PageArgs, print_next_page_hint};
use crate::config::parse_duration;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use ureq::http::Method;

#[derive(Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    remote: ClientArgs,
}

/// Key to create.
#[derive(Args)]
struct CreateArgs {
    /// Owner (tenant) that the key acts for; it exists from its first key on
    #[arg(long)]
    owner: String,

    /// What the key is for
    #[arg(long)]
    name: String,

    /// What it may do, separated by commas: predict, generate, train, adapters:read, adapters:write, metrics, admin
    #[arg(long, value_delimiter = ',', default_value = "predict,generate,train,adapters:read,adapters:write")]
    scopes: Vec<String>,

    /// Names of the adapters that it may use, separated by commas; * stands for any characters [default: all]
    #[arg(long, value_delimiter = ',')]
    adapters: Option<Vec<String>>,

    /// Requests other than GET in a minute [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    requests_per_minute: Option<u32>,

    /// Tokens of inputs and of generated text in a minute [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    tokens_per_minute: Option<u32>,

    /// Requests at the same time [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    concurrent_requests: Option<u32>,

    /// Time after which it is refused, such as 90d [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires_in: Option<Duration>,
}

#[derive(Subcommand)]
enum Command {
    /// Create a key and print it; it is not shown again
    Create(Box<CreateArgs>),
    /// List keys of all owners, newest first
    List(PageArgs),
    /// Create a key in place of another, which stays valid for a while
    Rotate {
        id: String,
        /// Time for which the old key stays valid
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
        grace: Duration,
    },
    /// Revoke a key at once
    Revoke { id: String },
}

pub fn run(args: &KeysArgs) -> CliResult {
    let (client, mut output) = (args.remote.client()?, args.remote.output());
    match &args.command {
        Command::Create(create) => {
            let created = client.post("/keys", &to_request(create)?)?;
            print_new_key(&created, &mut output)
        }
        Command::List(page) => list(&client, page, &mut output),
        Command::Rotate { id, grace } => {
            let body = json!({"grace_seconds": grace.as_secs()});
            let created = client.post(&format!("/keys/{}/rotate", encode_path_segment(id)), &body)?;
            print_new_key(&created, &mut output)
        }
        Command::Revoke { id } => {
            client.request_json(Method::DELETE, &format!("/keys/{}", encode_path_segment(id)))?;
            output.write_json(&json!({"revoked": id}))?;
            output.write_line(format!("{id} is revoked"))
        }
    }
}

fn to_request(create: &CreateArgs) -> CliResult<Value> {
    let mut request = json!({"owner": create.owner, "name": create.name, "scopes": create.scopes, "limits": {}});
    if let Some(adapters) = &create.adapters {
        request["adapters"] = json!(adapters);
    }
    for (limit, value) in [
        ("requests_per_minute", create.requests_per_minute),
        ("tokens_per_minute", create.tokens_per_minute),
        ("concurrent_requests", create.concurrent_requests),
    ] {
        if let Some(value) = value {
            request["limits"][limit] = json!(value);
        }
    }
    if let Some(time) = create.expires_in {
        let end = SystemTime::now().checked_add(time).map(chrono::DateTime::<chrono::Utc>::from);
        let end = end.ok_or_else(|| CliError::invalid_input("--expires-in is too long: leave it out".to_string()))?;
        request["expires_at"] = json!(end.to_rfc3339());
    }
    Ok(request)
}

/// Prints the key alone to standard output, so that a script can read it.
fn print_new_key(created: &Value, output: &mut Output) -> CliResult {
    output.write_json(created)?;
    output.write_line(string_field(created, "key"))
}

fn list(client: &Client, page: &PageArgs, output: &mut Output) -> CliResult {
    let response: Value = client.get(&format!("/keys?{}", page.to_query()))?;
    output.write_json(&response)?;
    let keys: ListResponse<Value> = client.decode(response)?;
    let mut rows = vec![["id", "owner", "name", "key", "status", "scopes", "last used"].map(String::from).to_vec()];
    for key in &keys.data {
        let scopes: Vec<&str> = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        rows.push(vec![
            string_field(key, "id"),
            string_field(key, "owner"),
            string_field(key, "name"),
            format!("{}…", string_field(key, "prefix")),
            string_field(key, "status"),
            scopes.join(","),
            key["last_used_at"].as_str().map(format_timestamp).unwrap_or_default(),
        ]);
    }
    output.write_table(&rows)?;
    print_next_page_hint("keys", keys.next.as_deref(), output)
}
