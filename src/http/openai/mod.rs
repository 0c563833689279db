//! OpenAI-compatible endpoints: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/v1/files`, `/v1/fine_tuning/jobs` and `/v1/load_lora_adapter`. Embeddings are
//! in [`super::embeddings`].
//!
//! `model` is the base model's name, or an adapter's name, id or `name@version`. Errors have OpenAI's format ([`super::openai_error`]).

mod best_of;
mod chat;
mod chat_format;
mod choice_output;
mod completion;
mod completions;
mod deployment;
mod field_check;
pub mod field_rules;
pub mod fields;
mod files;
mod fine_tuning;
mod ids;
mod list;
mod logprobs;
mod lora_adapters;
pub mod models;
pub mod object_fields;
pub mod prefill;
pub mod relevant_labels;
pub mod request;
mod responses;
mod tool_choice;
pub mod tool_definition;
mod tool_schema;
pub mod tools;

use super::state::AppState;
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(chat::routes())
        .merge(completions::routes())
        .merge(responses::routes())
        .merge(models::routes())
        .merge(files::routes())
        .merge(fine_tuning::routes())
}

pub fn upload_routes() -> OpenApiRouter<AppState> {
    files::upload_routes().merge(lora_adapters::routes())
}

#[cfg(test)]
mod tests {
    use super::fields::OpenAiRequest;
    use crate::http::openapi_document;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Names of the properties of a schema and of those that it is composed of.
    fn properties(document: &Value, schema: &Value) -> BTreeSet<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return properties(document, document.pointer(reference.trim_start_matches('#')).unwrap());
        }
        let own = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
        let parts = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| properties(document, part));
        own.chain(parts).collect()
    }

    fn check<T: OpenAiRequest>(document: &Value, schema: &str) {
        let documented = properties(document, &document["components"]["schemas"][schema]);
        let fields: BTreeSet<String> = T::FIELDS.iter().chain(T::FLATTENED.read).map(ToString::to_string).collect();
        assert_eq!(fields, documented, "{schema}");
        let flattened = T::FLATTENED.integers.iter().chain(T::FLATTENED.negative_defaults);
        let marked = T::INTEGERS.iter().chain(T::NEGATIVE_DEFAULTS).chain(flattened);
        assert!(marked.into_iter().all(|name| fields.contains(*name)), "{schema}");
    }

    #[test]
    fn fields_of_requests_are_those_of_their_types() {
        let document = serde_json::to_value(openapi_document()).unwrap();
        check::<super::chat::ChatRequest>(&document, "ChatRequest");
        check::<super::completions::CompletionRequest>(&document, "CompletionRequest");
        check::<super::responses::ResponsesRequest>(&document, "ResponsesRequest");
        check::<super::fine_tuning::FineTuningRequest>(&document, "FineTuningRequest");
        check::<super::lora_adapters::LoadLoraRequest>(&document, "LoadLoraRequest");
        check::<super::lora_adapters::UnloadLoraRequest>(&document, "UnloadLoraRequest");
        check::<crate::http::embeddings::EmbeddingsRequest>(&document, "EmbeddingsRequest");
        check::<crate::http::embeddings::RerankRequest>(&document, "RerankRequest");
        check::<crate::http::tokenize::TokenizeBody>(&document, "TokenizeBody");
        check::<crate::http::tokenize::DetokenizeBody>(&document, "DetokenizeBody");
    }
}
