//! `espalier chat`: a conversation, line by line, or one text to go on from; words are shown as they come.

use super::client::{Client, Remote, problem, segment};
use super::failure::{Failure, Outcome};
use super::sse::Events;
use clap::Args;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write, stdin, stdout};
use std::time::Duration;
use ureq::http::Method;
use ureq::http::header::CONTENT_TYPE;

/// A server that says nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct Chat {
    /// What to say first; without it, lines are read from standard input
    message: Option<String>,

    /// Adapter: an id, a name or name@version; without one the base answers
    #[arg(long)]
    adapter: Option<String>,

    /// Goes on from the text as it is, without the base's chat template
    #[arg(long)]
    plain: bool,

    /// What the assistant is told before all else
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value = "256")]
    max_tokens: u32,

    /// 0 takes the likeliest word always
    #[arg(long, value_name = "NUMBER", default_value = "0.7")]
    temperature: f64,

    /// The same seed gives the same words
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    #[command(flatten)]
    remote: Remote,
}

pub fn run(chat: &Chat) -> Outcome {
    let client = chat.remote.client()?;
    let mut messages: Vec<Value> = chat.system.iter().map(|text| json!({"role": "system", "content": text})).collect();
    if let Some(message) = &chat.message {
        return turn(&client, chat, &mut messages, message);
    }
    let is_asked = stdin().is_terminal() && !chat.remote.json;
    loop {
        if is_asked {
            show("> ")?;
        }
        let mut line = String::new();
        let read =
            stdin().lock().read_line(&mut line).map_err(|error| Failure::failed(format!("reading a line: {error}")))?;
        match line.trim() {
            _ if read == 0 => return Ok(()),
            "" => {}
            said => turn(&client, chat, &mut messages, said)?,
        }
    }
}

/// One message and its answer, which stays in the conversation.
fn turn(client: &Client, chat: &Chat, messages: &mut Vec<Value>, said: &str) -> Outcome {
    messages.push(json!({"role": "user", "content": said}));
    let input = if chat.plain { json!(said) } else { json!({"messages": messages}) };
    let mut request = json!({
        "inputs": [input], "stream": true, "max_tokens": chat.max_tokens, "temperature": chat.temperature,
    });
    if let Some(seed) = chat.seed {
        request["seed"] = json!(seed);
    }
    let answer = answer(client, chat, &request)?;
    messages.push(json!({"role": "assistant", "content": answer}));
    Ok(())
}

/// The answer's text, shown as it comes.
fn answer(client: &Client, chat: &Chat, request: &Value) -> Outcome<String> {
    let path = match &chat.adapter {
        None => "/generate".to_string(),
        Some(adapter) => format!("/generate?adapter={}", segment(adapter)),
    };
    let builder = client.request(Method::POST, &path).header(CONTENT_TYPE, "application/json");
    let response = client.stream(builder, request.to_string(), SILENCE)?;
    if !response.status().is_success() {
        return Err(problem(response).failure(None));
    }
    let mut text = String::new();
    for event in Events::new(response.into_body().into_reader()) {
        let event = event.map_err(|error| Failure::failed(format!("the answer broke off: {error}")))?;
        if event.data == "[DONE]" {
            break;
        }
        let piece: Value = client.shaped(serde_json::from_str(&event.data).unwrap_or_default())?;
        if let Some(error) = piece["error"].as_str() {
            return Err(Failure::failed(error.to_string()));
        }
        if chat.remote.json {
            show(&format!("{piece}\n"))?;
        } else if let Some(words) = piece["text"].as_str() {
            show(words)?;
        }
        text.push_str(piece["text"].as_str().unwrap_or_default());
    }
    if !chat.remote.json {
        show("\n")?;
    }
    Ok(text)
}

fn show(text: &str) -> Outcome {
    let mut out = stdout();
    let shown = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    shown.map_err(|error| Failure::failed(format!("writing an answer: {error}")))
}
