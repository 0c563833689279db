//! `espalier webhooks …`: creates, lists, tests, enables and deletes webhooks, and shows and resends their deliveries.

use super::api_types::{format_timestamp, string_field};
use super::client::{Client, ClientArgs};
use super::error::CliResult;
use super::output::Output;
use super::pagination::{ListResponse, PageArgs, print_next_page_hint};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::http::Method;
use uuid::Uuid;

#[derive(Args)]
pub struct WebhooksArgs {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    remote: ClientArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Create a webhook and print its secret, which is shown once
    Create {
        url: String,
        /// Events to call it for, separated by commas: job.succeeded, job.failed, job.cancelled [default: all]
        #[arg(long, value_delimiter = ',')]
        events: Option<Vec<String>>,
    },
    /// List webhooks, newest first
    List(PageArgs),
    /// Send the event webhook.test
    Test { id: Uuid },
    /// Call a disabled webhook again
    Enable { id: Uuid },
    /// Delete a webhook with its deliveries
    Delete { id: Uuid },
    /// List the deliveries of a webhook, newest first
    Deliveries {
        id: Uuid,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Send a delivery again
    Resend { id: Uuid, delivery: Uuid },
}

pub fn run(args: &WebhooksArgs) -> CliResult {
    let (client, mut output) = (args.remote.client()?, args.remote.output());
    match &args.command {
        Command::Create { url, events } => create(&client, url, events.as_deref(), &mut output),
        Command::List(page) => list(&client, page, &mut output),
        Command::Test { id } => {
            let delivery = post(&client, &format!("/webhooks/{id}/test"), &mut output)?;
            output.write_line(format!("delivery {} is queued", string_field(&delivery, "id")))
        }
        Command::Enable { id } => {
            post(&client, &format!("/webhooks/{id}/enable"), &mut output)?;
            output.write_line(format!("{id} is enabled"))
        }
        Command::Delete { id } => {
            client.request_json(Method::DELETE, &format!("/webhooks/{id}"))?;
            output.write_json(&json!({"deleted": id}))?;
            output.write_line(format!("{id} is deleted"))
        }
        Command::Deliveries { id, page } => deliveries(&client, *id, page, &mut output),
        Command::Resend { id, delivery } => {
            post(&client, &format!("/webhooks/{id}/deliveries/{delivery}/resend"), &mut output)?;
            output.write_line(format!("delivery {delivery} is queued"))
        }
    }
}

fn post(client: &Client, path: &str, output: &mut Output) -> CliResult<Value> {
    let response = client.request_json(Method::POST, path)?;
    output.write_json(&response)?;
    Ok(response)
}

fn create(client: &Client, url: &str, events: Option<&[String]>, output: &mut Output) -> CliResult {
    let mut body = json!({"url": url});
    if let Some(events) = events {
        body["events"] = json!(events);
    }
    let webhook = client.post("/webhooks", &body)?;
    output.write_json(&webhook)?;
    output.write_line(format!("webhook {}", string_field(&webhook, "id")))?;
    output.write_line(format!("secret  {}", string_field(&webhook, "secret")))
}

fn list(client: &Client, page: &PageArgs, output: &mut Output) -> CliResult {
    let response: Value = client.get(&format!("/webhooks?{}", page.to_query()))?;
    output.write_json(&response)?;
    let webhooks: ListResponse<Value> = client.decode(response)?;
    let mut rows = vec![["id", "url", "events", "disabled", "created"].map(String::from).to_vec()];
    for webhook in &webhooks.data {
        let events: Vec<&str> = webhook["events"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        rows.push(vec![
            string_field(webhook, "id"),
            string_field(webhook, "url"),
            events.join(", "),
            if webhook["disabled_at"].is_null() { "" } else { "yes" }.to_string(),
            format_timestamp(&string_field(webhook, "created_at")),
        ]);
    }
    output.write_table(&rows)?;
    print_next_page_hint("webhooks", webhooks.next.as_deref(), output)
}

fn deliveries(client: &Client, id: Uuid, page: &PageArgs, output: &mut Output) -> CliResult {
    let response: Value = client.get(&format!("/webhooks/{id}/deliveries?{}", page.to_query()))?;
    output.write_json(&response)?;
    let deliveries: ListResponse<Value> = client.decode(response)?;
    let mut rows = vec![["id", "event", "status", "attempts", "error", "created"].map(String::from).to_vec()];
    for delivery in &deliveries.data {
        rows.push(vec![
            string_field(delivery, "id"),
            string_field(delivery, "event"),
            string_field(delivery, "status"),
            delivery["attempts"].to_string(),
            string_field(delivery, "error"),
            format_timestamp(&string_field(delivery, "created_at")),
        ]);
    }
    output.write_table(&rows)?;
    print_next_page_hint("webhooks deliveries", deliveries.next.as_deref(), output)
}
