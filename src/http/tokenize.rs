//! `/tokenize`, `/detokenize` and `/tokenizer_info`, as vLLM has them.

use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::generation::messages;
use super::openai::field_rules::{Rule, neutral};
use super::openai::fields::{OpenAiJson, OpenAiRequest};
use super::openai::models::Model;
use super::openai::object_fields::{CHAT_OBJECTS, ObjectFields};
use super::openai::prefill;
use super::openai::request::{name_missing_model, resolve_model};
use super::openai::tool_definition::{self, ToolForm};
use super::openai::tools::{CallableTools, ChatPrompt, PreparedChat};
use super::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable, UnprocessableEntity};
use super::spawn::run_blocking;
use super::state::AppState;
use crate::serving::generation::Prompt;
use crate::serving::{TokenizeOutput, TokenizeRequest};
use axum::Json;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::model::chat::{Json as Variable, Message, RenderOptions};
use espalier_core::model::tokenizer::SpecialTokens;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const EITHER_PROMPT_OR_MESSAGES: &str = "give either \"prompt\" or \"messages\"";

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "support-answers", "prompt": "Where is my card?", "return_token_strs": true}))]
pub struct TokenizeBody {
    /// Base model's name, or an adapter's name, id or `name@version`. The base model by default.
    #[serde(default)]
    pub model: Option<String>,
    /// Text; or else `messages`.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Conversation, rendered with the chat template and the generation prompt.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub messages: Option<Vec<Message>>,
    /// Adds the special tokens of the tokenizer. Default `true` for a text, and `false` for messages, whose template has them.
    #[serde(default)]
    pub add_special_tokens: Option<bool>,
    /// Returns the tokens as the vocabulary writes them, too.
    #[serde(default)]
    pub return_token_strs: Option<bool>,
    /// Functions, rendered by the chat template.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>, max_items = 128)]
    pub tools: Option<Vec<Value>>,
    /// Continues the last message, which is the assistant's.
    #[serde(default)]
    pub continue_final_message: Option<bool>,
    /// Whether the prompt ends with the beginning of an assistant's message. Default true.
    #[serde(default)]
    pub add_generation_prompt: Option<bool>,
    /// Additional variables of the chat template, such as `enable_thinking`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<BTreeMap<String, Variable>>,
}

impl OpenAiRequest for TokenizeBody {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "prompt",
        "messages",
        "add_special_tokens",
        "return_token_strs",
        "tools",
        "continue_final_message",
        "add_generation_prompt",
        "chat_template_kwargs",
    ];
    const INTEGERS: &'static [&'static str] = &[];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = &[
        ("chat_template", Rule::Unsupported(neutral::never, "the base's template is used: leave it out")),
        ("mm_processor_kwargs", Rule::Unsupported(neutral::is_empty, "only text is tokenized: leave it out")),
    ];
    const OBJECTS: &'static [ObjectFields] = CHAT_OBJECTS;
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"count": 3, "max_model_len": 8192, "tokens": [9576, 314, 957], "token_strs": ["Where", "Ġis", "Ġmy"]}))]
pub struct TokenizeResponse {
    /// Number of tokens.
    pub count: usize,
    /// Tokens that the model reads.
    pub max_model_len: usize,
    pub tokens: Vec<u32>,
    /// Only with `return_token_strs`.
    pub token_strs: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"tokens": [9576, 314, 957]}))]
pub struct DetokenizeBody {
    /// Base model's name, or an adapter's name, id or `name@version`. The base model by default.
    #[serde(default)]
    pub model: Option<String>,
    pub tokens: Vec<u32>,
}

impl OpenAiRequest for DetokenizeBody {
    const FIELDS: &'static [&'static str] = &["model", "tokens"];
    const INTEGERS: &'static [&'static str] = &[];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = &[];
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"prompt": "Where is my"}))]
pub struct DetokenizeResponse {
    /// Text of the tokens, special tokens included.
    pub prompt: String,
}

/// The tokenizer's settings, with the names that transformers gives them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
    "unk_token": null, "pad_token": null, "model_max_length": 8192, "chat_template": "{% for message in messages %}…{% endfor %}"}))]
pub struct TokenizerInfo {
    /// `PreTrainedTokenizerFast`
    pub tokenizer_class: &'static str,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub unk_token: Option<String>,
    pub pad_token: Option<String>,
    pub model_max_length: usize,
    pub chat_template: Option<String>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(tokenize)).routes(routes!(detokenize)).routes(routes!(get_tokenizer_info))
}

/// Tokenize a text
///
/// Token ids of a text or of a conversation, as vLLM's endpoint returns them. The adapters of a base share its tokenizer.
#[utoipa::path(
    post, path = "/tokenize", operation_id = "tokenize", tag = "generation", request_body = TokenizeBody,
    responses(
        (status = 200, description = "The tokens.", body = TokenizeResponse),
        BadRequest, NotFound, Conflict, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn tokenize(
    state: AppState,
    caller: Caller,
    OpenAiJson(body, ignored): OpenAiJson<TokenizeBody>,
) -> ApiResult<Response> {
    let max_model_len = max_model_length(&state, &caller, body.model.as_deref()).await?;
    let (special_tokens, output) = (body.add_special_tokens, body.return_token_strs);
    let (prompt, default) = match (body.prompt, body.messages) {
        (Some(text), None) => (Prompt::Text(text), SpecialTokens::Add),
        (None, Some(messages)) => {
            let prompt_end = prefill::prompt_end(&messages, body.continue_final_message, body.add_generation_prompt)?;
            let variables = body.chat_template_kwargs.unwrap_or_default();
            let template_options = RenderOptions { variables, prompt_end, ..RenderOptions::default() };
            let (base, tools) = (Arc::clone(&state.base), body.tools.unwrap_or_default());
            let prepare = move || chat_prompt(&base, messages, template_options, &tools);
            (run_blocking("preparing a chat", prepare).await?, SpecialTokens::Omit)
        }
        (Some(_), Some(_)) => return Err(Error::invalid_field("/messages", EITHER_PROMPT_OR_MESSAGES).into()),
        (None, None) => return Err(Error::invalid_field("/prompt", EITHER_PROMPT_OR_MESSAGES).into()),
    };
    let special_tokens = match special_tokens {
        None => default,
        Some(true) => SpecialTokens::Add,
        Some(false) => SpecialTokens::Omit,
    };
    let output = match output {
        Some(true) => TokenizeOutput::IdsAndTokens,
        Some(false) | None => TokenizeOutput::Ids,
    };
    let tokenized = state.serving.tokenize(&caller.owner, TokenizeRequest { prompt, special_tokens, output }).await?;
    let response = TokenizeResponse {
        count: tokenized.ids.len(),
        max_model_len,
        tokens: tokenized.ids,
        token_strs: tokenized.tokens,
    };
    Ok(ignored.add_to(Json(response).into_response()))
}

/// Conversation as chat completions render it.
fn chat_prompt(
    base: &BaseModel,
    messages: Vec<Message>,
    template_options: RenderOptions,
    tools: &[Value],
) -> Result<Prompt> {
    let tools = CallableTools::select(tool_definition::parse(tools, ToolForm::Nested)?, None, None)?;
    let messages = messages::prepare(base, messages, "/messages")?;
    let prepared = ChatPrompt { messages, template_options, tools, format: None }.prepare(base)?;
    let PreparedChat { messages, template_options, .. } = prepared;
    Ok(Prompt::Messages { messages, template_options })
}

/// Detokenize
///
/// Text of token ids, as vLLM's endpoint returns it.
#[utoipa::path(
    post, path = "/detokenize", operation_id = "detokenize", tag = "generation", request_body = DetokenizeBody,
    responses(
        (status = 200, description = "The text.", body = DetokenizeResponse),
        BadRequest, NotFound, Conflict, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn detokenize(
    state: AppState,
    caller: Caller,
    OpenAiJson(body, ignored): OpenAiJson<DetokenizeBody>,
) -> ApiResult<Response> {
    max_model_length(&state, &caller, body.model.as_deref()).await?;
    let prompt = state.serving.detokenize(&caller.owner, body.tokens).await?;
    Ok(ignored.add_to(Json(DetokenizeResponse { prompt }).into_response()))
}

/// Describe the tokenizer
///
/// Special tokens and chat template, as vLLM's endpoint returns them.
#[utoipa::path(
    get, path = "/tokenizer_info", operation_id = "get_tokenizer_info", tag = "generation",
    responses((status = 200, description = "The tokenizer's settings.", body = TokenizerInfo)),
)]
async fn get_tokenizer_info(state: AppState) -> Json<TokenizerInfo> {
    let tokenizer = state.base.tokenizer();
    let template = tokenizer.valid_chat_template();
    let named = |name: &str| template?.special_token(name).map(str::to_string);
    Json(TokenizerInfo {
        tokenizer_class: "PreTrainedTokenizerFast",
        bos_token: named("bos_token"),
        eos_token: tokenizer.eos().and_then(|id| tokenizer.id_to_token(id)).or_else(|| named("eos_token")),
        unk_token: named("unk_token"),
        pad_token: named("pad_token"),
        model_max_length: state.base.info().max_tokens,
        chat_template: template.map(|template| template.source().to_string()),
    })
}

/// Tokens that the model reads.
///
/// # Errors
/// `model_not_found` for an unknown model.
async fn max_model_length(state: &AppState, caller: &Caller, model: Option<&str>) -> Result<usize, ApiError> {
    let base = state.base.info();
    let Some(model) = model else { return Ok(base.max_tokens) };
    let Some(reference) = resolve_model(state, model)? else { return Ok(base.max_tokens) };
    let adapter = state.store.adapter(&caller.owner, &reference).await;
    let adapter = adapter.map_err(|error| name_missing_model(error, model, Into::into))?;
    Ok(Model::from_adapter(base, &adapter).max_model_len)
}
