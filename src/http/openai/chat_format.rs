//! Answers of chat completions: messages with tool calls, and the deltas of a stream.

use super::choice_output::{ChoiceOutput, ChoicePrompt};
use super::completion::CompletionFormat;
use super::logprobs::ChatLogprobs;
use crate::http::state::AppState;
use crate::serving::generation::TokenOutput;
use crate::serving::generation::tool_call_parser::{ToolCallEvent, ToolCallParser};
use espalier_core::model::chat::tool_calls::ToolCallSyntax;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Choice of a chat completion.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
pub struct Choice {
    pub index: usize,
    pub message: AssistantMessage,
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` at the end of the text or a stop sequence, `length` if `max_tokens` was reached, `tool_calls` after calls.
    pub finish_reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatMessage)]
pub struct AssistantMessage {
    /// `assistant`
    pub role: &'static str,
    /// `null` if there are tool calls alone.
    pub content: Option<String>,
    /// Calls of functions, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// Call of a function.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatToolCall)]
pub struct ToolCall {
    pub id: String,
    /// `function`
    #[serde(rename = "type")]
    pub call_type: &'static str,
    pub function: FunctionCall,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChatFunctionCall)]
pub struct FunctionCall {
    pub name: String,
    /// JSON text. Not complete if `finish_reason` is `length`.
    pub arguments: String,
}

/// Writes the answers of one request.
#[derive(Clone)]
pub struct ChatFormat {
    /// Parser of an answer that begins; `None` if calls stay in the text.
    parser: Option<ToolCallParser>,
    syntax: &'static ToolCallSyntax,
    /// Parsers of the streamed choices.
    choice_parsers: BTreeMap<usize, ToolCallParser>,
}

impl ChatFormat {
    pub fn new(parser: Option<ToolCallParser>, syntax: &'static ToolCallSyntax) -> Self {
        Self { parser, syntax, choice_parsers: BTreeMap::new() }
    }

    /// Deltas of the events that the parser of a choice returns.
    fn parse(
        &mut self,
        index: usize,
        events: impl FnOnce(&mut ToolCallParser) -> Vec<ToolCallEvent>,
    ) -> Option<Vec<Value>> {
        let new_parser = self.parser.as_ref()?;
        let parser = self.choice_parsers.entry(index).or_insert_with(|| new_parser.clone());
        let first_call = parser.call_count();
        let events = events(parser);
        Some(to_deltas(events, first_call, self.syntax))
    }
}

impl CompletionFormat for ChatFormat {
    const ID_PREFIX: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    type Choice = Choice;

    fn choice(&self, state: &AppState, index: usize, output: ChoiceOutput) -> Choice {
        let ChoiceOutput { text, tokens, finish_reason, .. } = output;
        let logprobs = ChatLogprobs::from_tokens(state, &tokens).filter(|_| !tokens.is_empty());
        let Some(mut parser) = self.parser.clone() else {
            let message = AssistantMessage { role: "assistant", content: Some(text), tool_calls: Vec::new() };
            return Choice { index, message, logprobs, finish_reason };
        };
        let mut events = parser.push(&text);
        events.extend(parser.finish());
        let message = to_message(events, self.syntax);
        Choice { index, message, logprobs, finish_reason: with_calls(finish_reason, &parser) }
    }

    fn opening_chunk(&self, _state: &AppState, index: usize, _prompt: Option<&ChoicePrompt>) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        Some(json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null}))
    }

    fn token_chunks(&mut self, state: &AppState, index: usize, token: &TokenOutput) -> Vec<Value> {
        let mut logprobs = ChatLogprobs::from_tokens(state, std::slice::from_ref(token));
        let deltas = self.parse(index, |parser| parser.push(&token.text_delta));
        let mut deltas = deltas.unwrap_or_else(|| vec![json!({"content": token.text_delta})]);
        if deltas.is_empty() && logprobs.is_some() {
            deltas.push(json!({}));
        }
        let chunk = |delta| json!({"index": index, "delta": delta, "logprobs": logprobs.take(), "finish_reason": null});
        deltas.into_iter().map(chunk).collect()
    }

    fn finish_chunks(&mut self, index: usize, finish: &'static str) -> Vec<Value> {
        let deltas = self.parse(index, ToolCallParser::finish).unwrap_or_default();
        let finish = self.choice_parsers.get(&index).map_or(finish, |parser| with_calls(finish, parser));
        let ends = std::iter::repeat_n(None, deltas.len()).chain([Some(finish)]);
        let chunk =
            |(delta, finish)| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish});
        deltas.into_iter().chain([json!({})]).zip(ends).map(chunk).collect()
    }
}

/// The finish reason of an answer that was parsed.
fn with_calls(finish_reason: &'static str, parser: &ToolCallParser) -> &'static str {
    let has_complete_calls = parser.call_count() > 0 && !parser.is_inside_call();
    if finish_reason == "stop" && has_complete_calls { "tool_calls" } else { finish_reason }
}

fn to_message(events: Vec<ToolCallEvent>, syntax: &ToolCallSyntax) -> AssistantMessage {
    let (mut content, mut tool_calls): (String, Vec<ToolCall>) = (String::new(), Vec::new());
    for event in events {
        match event {
            ToolCallEvent::Content(text) => content += &text,
            ToolCallEvent::Call { name } => tool_calls.push(ToolCall {
                id: new_call_id(syntax),
                call_type: "function",
                function: FunctionCall { name, arguments: String::new() },
            }),
            ToolCallEvent::Arguments(text) => {
                tool_calls.last_mut().into_iter().for_each(|call| call.function.arguments += &text);
            }
        }
    }
    let content = (!content.is_empty() || tool_calls.is_empty()).then_some(content);
    AssistantMessage { role: "assistant", content, tool_calls }
}

/// Deltas of events; `call_count` is the number of calls before them.
fn to_deltas(events: Vec<ToolCallEvent>, mut call_count: usize, syntax: &ToolCallSyntax) -> Vec<Value> {
    let to_delta = |event| match event {
        ToolCallEvent::Content(text) => json!({"content": text}),
        ToolCallEvent::Call { name } => {
            call_count += 1;
            let function = json!({"name": name, "arguments": ""});
            let id = new_call_id(syntax);
            json!({"tool_calls": [{"index": call_count - 1, "id": id, "type": "function", "function": function}]})
        }
        ToolCallEvent::Arguments(text) => {
            let index = call_count.saturating_sub(1);
            json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        }
    };
    events.into_iter().map(to_delta).collect()
}

/// Id of a call, which the template of the next turn takes.
pub fn new_call_id(syntax: &ToolCallSyntax) -> String {
    let id = Uuid::now_v7().simple().to_string();
    match syntax.id_length {
        // The last digits of a version 7 UUID are random.
        Some(length) => id[id.len() - length..].to_string(),
        None => format!("call_{id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::generation::tool_call_parser::Arguments;
    use espalier_core::model::chat::tool_calls::{HERMES, MISTRAL};

    const TEXT: &str = "Yes.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \
                        \"arguments\": {\"a\": 2}}\n</tool_call>";

    fn parser() -> ToolCallParser {
        ToolCallParser::new(&HERMES, vec!["add".to_string()], Arguments::Constrained)
    }

    #[test]
    fn a_message_has_content_and_calls() {
        let message = to_message(parser().push(TEXT), &HERMES);
        let message = serde_json::to_value(message).unwrap();
        assert_eq!(message["content"], "Yes.");
        let calls = message["tool_calls"].as_array().unwrap();
        assert_eq!(calls[1]["function"], json!({"name": "add", "arguments": "{\"a\": 2}"}));
        assert_ne!(calls[0]["id"], calls[1]["id"]);
        let alone = to_message(parser().push(TEXT.trim_start_matches("Yes.\n")), &HERMES);
        assert_eq!(serde_json::to_value(alone).unwrap()["content"], Value::Null);
        let text = serde_json::to_value(to_message(Vec::new(), &HERMES)).unwrap();
        assert_eq!(text, json!({"role": "assistant", "content": ""}));
    }

    #[test]
    fn deltas_name_the_function_before_its_arguments() {
        let mut format = ChatFormat::new(Some(parser()), &HERMES);
        let deltas: Vec<Value> =
            TEXT.split_inclusive(' ').flat_map(|piece| format.parse(0, |parser| parser.push(piece)).unwrap()).collect();
        assert_eq!(deltas[0], json!({"content": "Yes."}));
        let starts: Vec<&Value> =
            deltas.iter().map(|delta| &delta["tool_calls"][0]).filter(|call| call["id"].is_string()).collect();
        assert_eq!((&starts[0]["index"], &starts[1]["index"]), (&json!(0), &json!(1)));
        assert_eq!(starts[0]["function"], json!({"name": "add", "arguments": ""}));
        let arguments: String = deltas
            .iter()
            .filter(|delta| delta["tool_calls"][0]["index"] == 1)
            .filter_map(|delta| delta["tool_calls"][0]["function"]["arguments"].as_str())
            .collect();
        assert_eq!(arguments, "{\"a\": 2}");
        let chunks = format.finish_chunks(0, "stop");
        assert_eq!(chunks, [json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "tool_calls"})]);
    }

    #[test]
    fn a_call_that_is_cut_off_ends_by_its_length() {
        let mut format = ChatFormat::new(Some(parser()), &HERMES);
        format.parse(0, |parser| parser.push(&TEXT[..TEXT.len() - 20]));
        assert_eq!(format.finish_chunks(0, "length").last().unwrap()["finish_reason"], "length");
        let mut stopped = ChatFormat::new(Some(parser()), &HERMES);
        stopped.parse(0, |parser| parser.push(&TEXT[..TEXT.find("1}").unwrap()]));
        assert_eq!(stopped.finish_chunks(0, "stop").last().unwrap()["finish_reason"], "stop");
    }

    #[test]
    fn ids_are_as_long_as_templates_require() {
        assert_eq!(new_call_id(&MISTRAL).len(), 9);
        assert!(new_call_id(&HERMES).starts_with("call_"));
    }
}
