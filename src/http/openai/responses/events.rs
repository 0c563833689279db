//! Events of a response. A response that is not streamed is what its events add up to.

use super::items::{FunctionCallItem, MessageItem, OutputItem};
use super::output::ResponseBody;
use super::status::Status;
use crate::http::error::ApiError;
use crate::http::generation::stream::{StreamEvent, Usage, event_stream};
use crate::http::openai::chat_format::new_call_id;
use crate::http::openai::logprobs::{ChatLogprobs, TokenLogprob};
use crate::http::spawn::run_blocking;
use crate::http::sse;
use crate::http::state::AppState;
use crate::serving::RunningGeneration;
use crate::serving::generation::tool_call_parser::{ToolCallEvent, ToolCallParser};
use crate::serving::generation::{FinishReason, TokenOutput};
use axum::response::Response;
use espalier_core::error::{Error, Result};
use espalier_core::model::chat::tool_calls::ToolCallSyntax;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

/// Event with its name and data.
type NamedEvent = (&'static str, Value);

/// Writes the events, and keeps the response that they add up to.
pub struct EventWriter {
    state: AppState,
    body: ResponseBody,
    /// `None` if calls stay in the text.
    parser: Option<ToolCallParser>,
    syntax: &'static ToolCallSyntax,
    /// Whether the last item of the response is in progress.
    is_item_open: bool,
    /// Log probabilities of tokens whose text the parser holds back.
    pending_logprobs: Vec<TokenLogprob>,
    sequence_number: u64,
}

impl EventWriter {
    pub fn new(
        state: &AppState,
        body: ResponseBody,
        parser: Option<ToolCallParser>,
        syntax: &'static ToolCallSyntax,
    ) -> Self {
        Self {
            state: state.clone(),
            body,
            parser,
            syntax,
            is_item_open: false,
            pending_logprobs: Vec::new(),
            sequence_number: 0,
        }
    }

    /// Streams the events of a response.
    pub fn stream(mut self, running: RunningGeneration) -> Response {
        let state = self.state.clone();
        let opening = vec![self.response_event("response.created"), self.response_event("response.in_progress")];
        let events = event_stream(running).flat_map(move |event| {
            stream::iter(match event {
                StreamEvent::Token { token, .. } => self.token(&token),
                StreamEvent::Finished { finish, prompt_tokens, completion_tokens, .. } => {
                    self.finished(finish, Usage::new(prompt_tokens, completion_tokens))
                }
                StreamEvent::Failed(error) => self.failed(error),
                StreamEvent::Done => Vec::new(),
            })
        });
        let events = stream::iter(opening).chain(events);
        sse::sse_response(&state, events.map(|(name, data)| sse::named_json_event(name, &data)))
    }

    /// Waits for the whole response.
    ///
    /// # Errors
    /// The error that ended the generation.
    pub async fn complete(mut self, running: RunningGeneration) -> Result<ResponseBody> {
        let mut completions = Vec::new();
        for generation in running.streams {
            let prompt_tokens = generation.prompt_tokens;
            completions.push((prompt_tokens, generation.collect().await?));
        }
        let write = move || {
            for (prompt_tokens, completion) in completions {
                completion.tokens.iter().for_each(|token| drop(self.token(token)));
                let usage = Usage::new(prompt_tokens, completion.tokens.len());
                self.finished(completion.finish_reason, usage);
            }
            Ok(self.body)
        };
        run_blocking("writing a response", write).await
    }

    fn token(&mut self, token: &TokenOutput) -> Vec<NamedEvent> {
        let logprobs = ChatLogprobs::from_tokens(&self.state, std::slice::from_ref(token));
        let logprobs = logprobs.map(|logprobs| logprobs.content).unwrap_or_default();
        let parts = match &mut self.parser {
            Some(parser) => parser.push(&token.text_delta),
            None if token.text_delta.is_empty() && logprobs.is_empty() => Vec::new(),
            None => vec![ToolCallEvent::Content(token.text_delta.clone())],
        };
        self.pending_logprobs.extend(logprobs);
        self.parts(parts)
    }

    /// Events of parts of the answer. The log probabilities of text that was held back belong to the next text.
    fn parts(&mut self, parts: Vec<ToolCallEvent>) -> Vec<NamedEvent> {
        let mut events = Vec::new();
        for part in parts {
            match part {
                ToolCallEvent::Content(text) => events.extend(self.content(&text)),
                ToolCallEvent::Call { name } => {
                    let call = FunctionCallItem::new(new_call_id(self.syntax), name);
                    events.extend(self.open(OutputItem::FunctionCall(call)));
                }
                ToolCallEvent::Arguments(text) => events.extend(self.arguments(&text)),
            }
        }
        events
    }

    fn content(&mut self, text: &str) -> Vec<NamedEvent> {
        let logprobs = std::mem::take(&mut self.pending_logprobs);
        let mut events = Vec::new();
        if !(self.is_item_open && matches!(self.body.output.last(), Some(OutputItem::Message(_)))) {
            events = self.open(OutputItem::Message(MessageItem::new()));
        }
        let fields = json!({"delta": text, "logprobs": logprobs, "content_index": 0});
        if let Some(OutputItem::Message(message)) = self.body.output.last_mut() {
            message.append(text, logprobs);
        }
        events.push(self.item_event("response.output_text.delta", fields));
        events
    }

    fn arguments(&mut self, text: &str) -> Option<NamedEvent> {
        match self.body.output.last_mut() {
            Some(OutputItem::FunctionCall(call)) => call.arguments.push_str(text),
            _ => return None,
        }
        Some(self.item_event("response.function_call_arguments.delta", json!({"delta": text})))
    }

    /// Opens an item, after the last one is complete.
    fn open(&mut self, item: OutputItem) -> Vec<NamedEvent> {
        let mut events = self.close(Status::Completed);
        let mut value = json!(item);
        let part = value.get_mut("content").map(|content| std::mem::replace(content, json!([]))[0].take());
        self.body.output.push(item);
        self.is_item_open = true;
        let output_index = self.body.output.len() - 1;
        events.push(self.event("response.output_item.added", json!({"output_index": output_index, "item": value})));
        if let Some(part) = part {
            let fields = json!({"content_index": 0, "part": part});
            events.push(self.item_event("response.content_part.added", fields));
        }
        events
    }

    /// Ends the item in progress, if there is one.
    fn close(&mut self, status: Status) -> Vec<NamedEvent> {
        if !std::mem::take(&mut self.is_item_open) {
            return Vec::new();
        }
        match self.body.output.last_mut() {
            Some(OutputItem::Message(message)) => message.status = status,
            Some(OutputItem::FunctionCall(call)) => call.status = status,
            None => {}
        }
        let item = json!(self.body.output.last());
        let mut events = match self.body.output.last() {
            Some(OutputItem::FunctionCall(call)) => {
                let fields = json!({"name": call.name, "arguments": call.arguments});
                vec![self.item_event("response.function_call_arguments.done", fields)]
            }
            _ => {
                let part = item["content"][0].clone();
                let text = json!({"content_index": 0, "text": part["text"], "logprobs": part["logprobs"]});
                let text = self.item_event("response.output_text.done", text);
                let part = json!({"content_index": 0, "part": part});
                vec![text, self.item_event("response.content_part.done", part)]
            }
        };
        let output_index = self.body.output.len() - 1;
        events.push(self.event("response.output_item.done", json!({"output_index": output_index, "item": item})));
        events
    }

    fn finished(&mut self, finish: FinishReason, usage: Usage) -> Vec<NamedEvent> {
        let rest = self.parser.as_mut().map(ToolCallParser::finish).unwrap_or_default();
        let mut events = self.parts(rest);
        if self.body.output.is_empty() {
            events.extend(self.open(OutputItem::Message(MessageItem::new())));
        }
        self.body.finish(finish, usage);
        events.extend(self.close(self.body.status));
        let is_incomplete = self.body.status == Status::Incomplete;
        events.push(self.response_event(if is_incomplete { "response.incomplete" } else { "response.completed" }));
        events
    }

    fn failed(&mut self, error: Error) -> Vec<NamedEvent> {
        self.body.fail(&ApiError::from(error).detail);
        vec![self.response_event("response.failed")]
    }

    fn response_event(&mut self, name: &'static str) -> NamedEvent {
        let response = json!({"response": self.body});
        self.event(name, response)
    }

    /// Event of the item in progress.
    fn item_event(&mut self, name: &'static str, mut fields: Value) -> NamedEvent {
        let id = match self.body.output.last() {
            Some(OutputItem::Message(message)) => message.id.as_str(),
            Some(OutputItem::FunctionCall(call)) => call.id.as_str(),
            None => "",
        };
        fields["item_id"] = json!(id);
        fields["output_index"] = json!(self.body.output.len().saturating_sub(1));
        self.event(name, fields)
    }

    fn event(&mut self, name: &'static str, mut fields: Value) -> NamedEvent {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.sequence_number);
        self.sequence_number += 1;
        (name, fields)
    }
}
