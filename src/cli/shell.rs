//! Lines to paste into a shell.

use super::client::{Client, DEFAULT_SERVER, segment};
use super::failure::Outcome;
use super::output::Output;
use serde_json::Value;

/// The flag that names the server, where it is not the default one, with a space in front.
pub fn server(client: &Client) -> String {
    match client.server() {
        DEFAULT_SERVER => String::new(),
        server => format!(" --server {}", quote(server)),
    }
}

/// How to ask an adapter, by this program and by any other; `whole` is its job or the adapter itself, whose task says how.
pub fn show(client: &Client, adapter: &str, whole: &Value, output: &mut Output) -> Outcome {
    let (intention, command, call) = match whole["task"]["type"].as_str() {
        Some("causal_language_model" | "preference") => ("talk to it", "chat", "generate"),
        _ => ("predict with it", "predict", "predict"),
    };
    output.line(format!("{intention}:"))?;
    let key = if client.has_key() { " -H \"Authorization: Bearer $ESPALIER_API_KEY\"" } else { "" };
    let url = quote(&format!("{}/{call}?adapter={}", client.server(), segment(adapter)));
    if command == "chat" {
        output.line("(with --plain where it learned from prompts rather than from conversations)")?;
    }
    output.line(format!("  espalier {command} --adapter {}{} \"your text\"", quote(adapter), server(client)))?;
    output.line(format!("  curl {url}{key} -H 'Content-Type: application/json' -d '{{\"inputs\": [\"your text\"]}}'"))
}

fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_read_is_quoted() {
        assert_eq!(quote("support-intents@sha256:0a"), "support-intents@sha256:0a");
        assert_eq!(quote("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quote("http://h/predict?adapter=a"), "'http://h/predict?adapter=a'");
    }
}
