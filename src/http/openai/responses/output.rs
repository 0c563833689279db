//! The response object.

use super::TextFormat;
use super::items::{OutputItem, new_id};
use super::status::Status;
use crate::http::generation::stream::Usage;
use crate::http::openai::request::TokenLimit;
use crate::serving::generation::FinishReason;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Settings of a request that its response repeats.
pub struct ResponseSettings {
    pub model: String,
    pub instructions: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub max_output_tokens: Option<TokenLimit>,
    pub parallel_tool_calls: bool,
    pub temperature: f32,
    pub top_p: f32,
    pub top_logprobs: u32,
    pub text_format: TextFormat,
    pub tools: Vec<Value>,
    pub tool_choice: Value,
}

/// A response, as OpenAI's API returns it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponseObject, example = json!({
    "id": "resp_0193", "object": "response", "created_at": 1767605400, "completed_at": 1767605401, "status": "completed", "error": null,
    "incomplete_details": null, "instructions": null, "max_output_tokens": 64, "metadata": {}, "model": "support-answers",
    "output": [{"type": "message", "id": "msg_0193", "status": "completed", "role": "assistant", "content": [
        {"type": "output_text", "text": "Cards take up to seven working days.", "annotations": [], "logprobs": []}]}],
    "parallel_tool_calls": true, "previous_response_id": null, "store": false, "background": false, "temperature": 1.0, "top_p": 1.0,
    "top_logprobs": 0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "truncation": "disabled",
    "usage": {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 21}
}))]
pub struct ResponseBody {
    pub id: String,
    /// `response`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: u64,
    pub completed_at: Option<u64>,
    pub status: Status,
    /// `code` and `message` of a failed response.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Value>,
    pub incomplete_details: Option<IncompleteDetails>,
    pub instructions: Option<String>,
    pub max_output_tokens: Option<u32>,
    pub metadata: BTreeMap<String, String>,
    pub model: String,
    /// Messages and calls of functions.
    pub output: Vec<OutputItem>,
    pub parallel_tool_calls: bool,
    /// `null`: responses are not stored.
    pub previous_response_id: Option<String>,
    /// `false`
    pub store: bool,
    /// `false`
    pub background: bool,
    pub temperature: f32,
    pub top_p: f32,
    pub top_logprobs: u32,
    /// Format of the text.
    #[schema(value_type = Object)]
    pub text: Value,
    pub tool_choice: Value,
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
    /// `disabled`
    pub truncation: &'static str,
    pub usage: Option<ResponseUsage>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens`
    pub reason: &'static str,
}

/// Number of tokens of a response.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct ResponseUsage {
    pub input_tokens: usize,
    pub input_tokens_details: InputTokensDetails,
    pub output_tokens: usize,
    pub output_tokens_details: OutputTokensDetails,
    pub total_tokens: usize,
}

/// Always 0: the prefix cache of the server is not counted per request.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct InputTokensDetails {
    pub cached_tokens: usize,
    pub cache_write_tokens: usize,
}

/// Always 0: reasoning is a part of the text.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct OutputTokensDetails {
    pub reasoning_tokens: usize,
}

impl ResponseBody {
    /// A response in progress, without output.
    pub fn new(settings: ResponseSettings) -> Self {
        Self {
            id: new_id("resp"),
            object: "response",
            created_at: seconds_now(),
            completed_at: None,
            status: Status::InProgress,
            error: None,
            incomplete_details: None,
            instructions: settings.instructions,
            max_output_tokens: settings.max_output_tokens.map(TokenLimit::get),
            metadata: settings.metadata,
            model: settings.model,
            output: Vec::new(),
            parallel_tool_calls: settings.parallel_tool_calls,
            previous_response_id: None,
            store: false,
            background: false,
            temperature: settings.temperature,
            top_p: settings.top_p,
            top_logprobs: settings.top_logprobs,
            text: json!({"format": settings.text_format}),
            tool_choice: settings.tool_choice,
            tools: settings.tools,
            truncation: "disabled",
            usage: None,
        }
    }

    /// Records the end of the generation.
    pub fn finish(&mut self, finish: FinishReason, usage: Usage) {
        self.status = match finish {
            FinishReason::Stop => Status::Completed,
            FinishReason::Length => Status::Incomplete,
        };
        let status = self.status;
        self.completed_at = (status == Status::Completed).then(seconds_now);
        self.incomplete_details =
            (status == Status::Incomplete).then_some(IncompleteDetails { reason: "max_output_tokens" });
        self.usage = Some(ResponseUsage {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails::default(),
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails::default(),
            total_tokens: usage.total_tokens,
        });
    }

    /// Records a failure, whose message clients may see.
    pub fn fail(&mut self, message: &str) {
        self.status = Status::Failed;
        self.error = Some(json!({"code": "server_error", "message": message}));
    }
}

/// Seconds since 1970.
fn seconds_now() -> u64 {
    Uuid::now_v7().get_timestamp().map_or(0, |time| time.to_unix().0)
}
