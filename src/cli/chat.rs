//! `espalier chat`: an interactive conversation, or a single message; prints tokens as they are generated.

use super::client::{Client, ClientArgs, encode_path_segment, read_problem};
use super::error::{CliError, CliResult};
use super::sse::EventStream;
use clap::Args;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write, stdin, stdout};
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::CONTENT_TYPE;

/// Maximum time without data from the server.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct ChatArgs {
    /// Message to answer; without it, messages are read from standard input, one per line
    message: Option<String>,

    /// Adapter: an id, a name or name@version; by default the base model answers
    #[arg(long)]
    adapter: Option<String>,

    /// Continue the text as it is, without the base model's chat template
    #[arg(long)]
    raw: bool,

    /// System message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Maximum number of tokens per answer
    #[arg(long, value_name = "N", default_value = "256")]
    max_tokens: u32,

    /// Sampling temperature; 0 is greedy decoding
    #[arg(long, value_name = "NUMBER", default_value = "0.7")]
    temperature: f64,

    /// Seed of the sampler; equal seeds give equal answers [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    #[command(flatten)]
    remote: ClientArgs,
}

pub fn run(args: &ChatArgs) -> CliResult {
    let client = args.remote.client()?;
    let mut messages: Vec<Value> = args.system.iter().map(|text| json!({"role": "system", "content": text})).collect();
    if let Some(message) = &args.message {
        return send_message(&client, args, &mut messages, message);
    }
    let shows_prompt = stdin().is_terminal() && !args.remote.json;
    loop {
        if shows_prompt {
            print_flushed("> ")?;
        }
        let mut line = String::new();
        let read = stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|error| CliError::failed(format!("reading a line: {error}")))?;
        match line.trim() {
            _ if read == 0 => return Ok(()),
            "" => {}
            text => send_message(&client, args, &mut messages, text)?,
        }
    }
}

/// Sends a message and adds it and its answer to the conversation.
fn send_message(client: &Client, args: &ChatArgs, messages: &mut Vec<Value>, text: &str) -> CliResult {
    messages.push(json!({"role": "user", "content": text}));
    let input = if args.raw { json!(text) } else { json!({"messages": messages}) };
    let mut request = json!({
        "inputs": [input], "stream": true, "max_tokens": args.max_tokens, "temperature": args.temperature,
    });
    if let Some(seed) = args.seed {
        request["seed"] = json!(seed);
    }
    let answer = stream_answer(client, args, &request)?;
    messages.push(json!({"role": "assistant", "content": answer}));
    Ok(())
}

/// Prints the answer as it is generated and returns its text.
fn stream_answer(client: &Client, args: &ChatArgs, request: &Value) -> CliResult<String> {
    let path = match &args.adapter {
        None => "/generate".to_string(),
        Some(adapter) => format!("/generate?adapter={}", encode_path_segment(adapter)),
    };
    let builder = client.request(Method::POST, &path).header(CONTENT_TYPE, "application/json");
    let response = client.open_stream(builder, request.to_string(), READ_TIMEOUT)?;
    if !response.status().is_success() {
        return Err(read_problem(response).to_error(None));
    }
    let mut text = String::new();
    for event in EventStream::new(response.into_body().into_reader()) {
        let event = event.map_err(|error| CliError::failed(format!("the answer was interrupted: {error}")))?;
        if event.data == "[DONE]" {
            break;
        }
        let delta: Value = client.decode(serde_json::from_str(&event.data).unwrap_or_default())?;
        if let Some(error) = delta["error"].as_str() {
            return Err(CliError::failed(error.to_string()));
        }
        if args.remote.json {
            print_flushed(&format!("{delta}\n"))?;
        } else if let Some(text_delta) = delta["text"].as_str() {
            print_flushed(text_delta)?;
        }
        text.push_str(delta["text"].as_str().unwrap_or_default());
    }
    if !args.remote.json {
        print_flushed("\n")?;
    }
    Ok(text)
}

fn print_flushed(text: &str) -> CliResult {
    let mut out = stdout();
    let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    result.map_err(|error| CliError::failed(format!("writing an answer: {error}")))
}
