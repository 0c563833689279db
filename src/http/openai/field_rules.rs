//! Fields of other servers' requests that ours do not have: their neutral values, and what to do instead of the others.

use serde_json::Value;

/// What happens to a field that the request type does not have.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Does not change the answer.
    NoEffect,
    /// Does not change the answer if it has one of these values; otherwise it is named as ignored.
    Hint(fn(&Value) -> bool),
    /// Would change the answer unless it has one of these values; the text says what to do.
    Unsupported(fn(&Value) -> bool, &'static str),
}

/// Neutral values that several fields share.
pub mod neutral {
    use serde_json::Value;

    pub fn never(_: &Value) -> bool {
        false
    }

    pub fn is_false(value: &Value) -> bool {
        value == &Value::Bool(false)
    }

    pub fn is_true(value: &Value) -> bool {
        value == &Value::Bool(true)
    }

    pub fn is_zero(value: &Value) -> bool {
        value.as_f64() == Some(0.0)
    }

    pub fn is_one(value: &Value) -> bool {
        value.as_f64() == Some(1.0)
    }

    pub fn is_empty(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        }
    }

    pub fn is_auto(value: &Value) -> bool {
        value == "auto" || value == "default"
    }

    pub fn is_auto_or_none(value: &Value) -> bool {
        value == "auto" || value == "none"
    }

    pub fn is_none(value: &Value) -> bool {
        value == "none"
    }

    pub fn is_medium(value: &Value) -> bool {
        value == "medium"
    }

    pub fn is_disabled(value: &Value) -> bool {
        value == "disabled"
    }

    /// Whether no field of `reasoning` asks for reasoning.
    pub fn is_no_reasoning(value: &Value) -> bool {
        let is_neutral = |(name, value): (&String, &Value)| match name.as_str() {
            // They describe reasoning that there may be.
            "summary" | "generate_summary" | "context" => true,
            "mode" => value.is_null() || value == "standard",
            _ => value.is_null() || value == "none",
        };
        value.as_object().is_some_and(|fields| fields.iter().all(is_neutral))
    }

    /// Whether `stream_options` do not ask for padding of the events.
    pub fn is_no_obfuscation(value: &Value) -> bool {
        let is_neutral =
            |(name, value): (&String, &Value)| name == "include_obfuscation" && (value.is_null() || is_false(value));
        value.as_object().is_some_and(|fields| fields.iter().all(is_neutral))
    }

    pub fn is_text_alone(value: &Value) -> bool {
        value.as_array().is_some_and(|items| items.iter().all(|item| item == "text"))
    }
}

/// Field of chat completions alone.
pub const CHAT_FIELDS: &[(&str, Rule)] = &[(
    "add_special_tokens",
    Rule::Unsupported(neutral::is_false, "the chat template has the special tokens: leave it out"),
)];

/// Field of text completions alone.
pub const COMPLETION_FIELDS: &[(&str, Rule)] = &[(
    "add_special_tokens",
    Rule::Unsupported(neutral::is_true, "the special tokens of the tokenizer are always added: leave it out"),
)];

/// Fields of requests for generated text, of OpenAI's API and of vLLM's.
pub const GENERATION_FIELDS: &[(&str, Rule)] = &[
    ("audio", Rule::Unsupported(neutral::never, "no audio is generated: leave it out")),
    ("function_call", Rule::Unsupported(neutral::is_auto_or_none, "is not supported: use \"tool_choice\"")),
    ("functions", Rule::Unsupported(neutral::is_empty, "are not supported: use \"tools\"")),
    ("metadata", Rule::NoEffect),
    (
        "modalities",
        Rule::Unsupported(neutral::is_text_alone, "only text is generated: send [\"text\"], or leave it out"),
    ),
    ("moderation", Rule::Unsupported(neutral::never, "is not supported: leave it out")),
    // A prediction only speeds up the same answer.
    ("prediction", Rule::NoEffect),
    ("prompt_cache_key", Rule::NoEffect),
    ("prompt_cache_options", Rule::NoEffect),
    ("prompt_cache_retention", Rule::NoEffect),
    (
        "reasoning_effort",
        Rule::Unsupported(neutral::is_none, "is not supported: use \"chat_template_kwargs\" of the base's template"),
    ),
    ("safety_identifier", Rule::NoEffect),
    ("service_tier", Rule::Hint(neutral::is_auto)),
    ("store", Rule::Hint(neutral::is_false)),
    ("user", Rule::NoEffect),
    ("verbosity", Rule::Unsupported(neutral::is_medium, "is not supported: ask for it in the messages")),
    ("web_search_options", Rule::Unsupported(neutral::never, "nothing is searched: leave it out")),
    // vLLM
    ("cache_salt", Rule::NoEffect),
    ("chat_template", Rule::Unsupported(neutral::never, "the base's template is used: leave it out")),
    ("detokenize", Rule::Unsupported(neutral::is_true, "text is always returned: leave it out")),
    ("documents", Rule::Unsupported(neutral::is_empty, "are not supported: put them into the messages")),
    ("early_stopping", Rule::Unsupported(neutral::is_false, "there is no beam search: leave it out")),
    ("guided_choice", Rule::Unsupported(neutral::never, "is not supported: send a response_format of the type regex")),
    ("guided_grammar", Rule::Unsupported(neutral::never, "is not supported: send a response_format")),
    (
        "guided_json",
        Rule::Unsupported(neutral::never, "is not supported: send a response_format of the type json_schema"),
    ),
    ("guided_regex", Rule::Unsupported(neutral::never, "is not supported: send a response_format of the type regex")),
    ("ignore_eos", Rule::Unsupported(neutral::is_false, "is not supported: forbid the token with logit_bias")),
    ("include_reasoning", Rule::NoEffect),
    ("kv_transfer_params", Rule::Unsupported(neutral::is_empty, "is not supported: leave it out")),
    ("length_penalty", Rule::Unsupported(neutral::is_one, "there is no beam search: leave it out")),
    ("logits_processors", Rule::Unsupported(neutral::is_empty, "are not supported: leave them out")),
    ("min_tokens", Rule::Unsupported(neutral::is_zero, "is not supported: leave it out")),
    ("priority", Rule::Hint(neutral::is_zero)),
    ("prompt_logprobs", Rule::Unsupported(neutral::never, "are not supported: leave them out")),
    ("request_id", Rule::NoEffect),
    ("return_tokens_as_token_ids", Rule::Unsupported(neutral::is_false, "is not supported: leave it out")),
    (
        "skip_special_tokens",
        Rule::Unsupported(neutral::is_true, "special tokens are never part of the text: leave it out"),
    ),
    ("spaces_between_special_tokens", Rule::NoEffect),
    ("stop_token_ids", Rule::Unsupported(neutral::is_empty, "are not supported: use \"stop\"")),
    ("structured_outputs", Rule::Unsupported(neutral::is_empty, "is not supported: send a response_format")),
    ("truncate_prompt_tokens", Rule::Unsupported(neutral::never, "prompts are not cut: send a shorter one")),
    ("use_beam_search", Rule::Unsupported(neutral::is_false, "there is no beam search: leave it out")),
];

/// Fields of `/v1/responses`.
pub const RESPONSES_FIELDS: &[(&str, Rule)] = &[
    ("access_programs", Rule::Unsupported(neutral::is_empty, "are not supported: leave them out")),
    ("background", Rule::Unsupported(neutral::is_false, "responses are not stored: wait for the answer, or stream it")),
    // Without `background` they do not matter.
    ("background_options", Rule::NoEffect),
    ("context_management", Rule::Unsupported(neutral::is_empty, "is not supported: shorten the input yourself")),
    (
        "conversation",
        Rule::Unsupported(neutral::never, "responses are not stored: send the whole conversation as \"input\""),
    ),
    // Compression of images in the input, which there are none of.
    ("image", Rule::NoEffect),
    // A limit on calls of built-in tools, which there are none of.
    ("max_tool_calls", Rule::NoEffect),
    ("moderation", Rule::Unsupported(neutral::never, "is not supported: leave it out")),
    (
        "previous_response_id",
        Rule::Unsupported(neutral::never, "responses are not stored: send the whole conversation as \"input\""),
    ),
    ("prompt", Rule::Unsupported(neutral::never, "prompts are not stored: send \"instructions\" and \"input\"")),
    ("prompt_cache_key", Rule::NoEffect),
    ("prompt_cache_options", Rule::NoEffect),
    ("prompt_cache_retention", Rule::NoEffect),
    (
        "reasoning",
        Rule::Unsupported(
            neutral::is_no_reasoning,
            "is not supported: use \"chat_template_kwargs\" of the base's template, or send {\"effort\": \"none\"}",
        ),
    ),
    ("safety_identifier", Rule::NoEffect),
    ("service_tier", Rule::Hint(neutral::is_auto)),
    ("store", Rule::Hint(neutral::is_false)),
    ("stream_options", Rule::Hint(neutral::is_no_obfuscation)),
    (
        "truncation",
        Rule::Unsupported(neutral::is_disabled, "only \"disabled\" is supported: shorten the input yourself"),
    ),
    ("user", Rule::NoEffect),
];

/// Fields of embedding requests, of OpenAI's API and of vLLM's.
pub const EMBEDDING_FIELDS: &[(&str, Rule)] = &[
    ("user", Rule::NoEffect),
    ("add_special_tokens", Rule::Unsupported(neutral::is_true, "special tokens are always added: leave it out")),
    (
        "normalize",
        Rule::Unsupported(neutral::is_true, "embeddings always have length 1: leave it out, or use POST /embed"),
    ),
    ("priority", Rule::Hint(neutral::is_zero)),
    ("request_id", Rule::NoEffect),
];

/// Fields of rerank requests, of Cohere's, Jina's and vLLM's APIs.
pub const RERANK_FIELDS: &[(&str, Rule)] = &[
    ("max_chunks_per_doc", Rule::Unsupported(neutral::never, "documents are not cut into chunks: leave it out")),
    ("max_tokens_per_doc", Rule::Unsupported(neutral::never, "documents are cut at the base's length: leave it out")),
    ("priority", Rule::Hint(neutral::is_zero)),
    ("rank_fields", Rule::Unsupported(neutral::is_empty, "documents are texts: join their fields yourself")),
    ("return_embeddings", Rule::Unsupported(neutral::is_false, "is not supported: use POST /v1/embeddings")),
    ("user", Rule::NoEffect),
];
