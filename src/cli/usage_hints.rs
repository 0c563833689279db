//! Prints shell commands that use an adapter.

use super::client::{Client, DEFAULT_SERVER_URL, encode_path_segment};
use super::error::CliResult;
use super::output::Output;
use serde_json::Value;

/// Returns ` --server URL`, or an empty string for the default server.
pub fn server_flag(client: &Client) -> String {
    match client.server_url() {
        DEFAULT_SERVER_URL => String::new(),
        server => format!(" --server {}", shell_quote(server)),
    }
}

/// Prints how to use an adapter with this program and with curl, depending on the task of `job_or_adapter`.
pub fn print_usage_hints(client: &Client, reference: &str, job_or_adapter: &Value, output: &mut Output) -> CliResult {
    let (heading, command, endpoint) = match job_or_adapter["task"]["type"].as_str() {
        Some("causal_language_model" | "preference") => ("chat with it", "chat", "generate"),
        _ => ("predict with it", "predict", "predict"),
    };
    output.write_line(format!("{heading}:"))?;
    let key = if client.has_api_key() { " -H \"Authorization: Bearer $ESPALIER_API_KEY\"" } else { "" };
    let url = shell_quote(&format!("{}/{endpoint}?adapter={}", client.server_url(), encode_path_segment(reference)));
    if command == "chat" {
        output.write_line("(with --raw if it was trained on prompts instead of conversations)")?;
    }
    output.write_line(format!(
        "  espalier {command} --adapter {}{} \"your text\"",
        shell_quote(reference),
        server_flag(client)
    ))?;
    output.write_line(format!(
        "  curl {url}{key} -H 'Content-Type: application/json' -d '{{\"inputs\": [\"your text\"]}}'"
    ))
}

fn shell_quote(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
    match !text.is_empty() && text.chars().all(is_safe) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_metacharacters_are_quoted() {
        assert_eq!(shell_quote("support-intents@sha256:0a"), "support-intents@sha256:0a");
        assert_eq!(shell_quote("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(shell_quote("http://h/predict?adapter=a"), "'http://h/predict?adapter=a'");
    }
}
