//! Items of a response: messages, and calls of functions.

use super::status::Status;
use crate::http::openai::logprobs::TokenLogprob;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// Item of a response.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ResponseOutputItem)]
pub enum OutputItem {
    Message(MessageItem),
    FunctionCall(FunctionCallItem),
}

/// A message of the assistant.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponseMessage)]
pub struct MessageItem {
    /// `message`
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: String,
    pub status: Status,
    /// `assistant`
    pub role: &'static str,
    pub content: Vec<OutputText>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponseOutputText)]
pub struct OutputText {
    /// `output_text`
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub text: String,
    #[schema(value_type = Vec<Object>)]
    pub annotations: Vec<Value>,
    /// Only with `message.output_text.logprobs` in `include`.
    pub logprobs: Vec<TokenLogprob>,
}

/// Call of a function.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponseFunctionCall)]
pub struct FunctionCallItem {
    /// `function_call`
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: String,
    pub status: Status,
    /// Value of `call_id` of the `function_call_output`.
    pub call_id: String,
    pub name: String,
    /// JSON text. Not complete if `status` is `incomplete`.
    pub arguments: String,
}

impl MessageItem {
    /// A message in progress, without text.
    pub fn new() -> Self {
        let text =
            OutputText { kind: "output_text", text: String::new(), annotations: Vec::new(), logprobs: Vec::new() };
        Self { kind: "message", id: new_id("msg"), status: Status::InProgress, role: "assistant", content: vec![text] }
    }

    pub fn append(&mut self, text: &str, logprobs: Vec<TokenLogprob>) {
        for part in &mut self.content {
            part.text.push_str(text);
            part.logprobs.extend(logprobs.iter().cloned());
        }
    }
}

impl FunctionCallItem {
    /// A call in progress, without arguments.
    pub fn new(call_id: String, name: String) -> Self {
        Self {
            kind: "function_call",
            id: new_id("fc"),
            status: Status::InProgress,
            call_id,
            name,
            arguments: String::new(),
        }
    }
}

/// A new id with a prefix.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}
