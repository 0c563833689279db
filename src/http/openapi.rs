//! The API's description, collected from the routes themselves, so that the two cannot drift.
//!
//! Knows no single call: what is said here is what all of them share.

use super::openapi_unions;
use super::problem::Problem;
use super::problem_responses::{self, COMMON_STATUSES};
use super::router::route_groups;
use espalier_core::error::{Context, Result};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "espalier",
        description = "One frozen transformer, many small adapters, trained and served from the one copy. A dataset becomes \
            a job, a job becomes an adapter, and every adapter predicts at once.\n\nEvery error is a problem (RFC 9457; under /v1 in OpenAI's form) \
            with a fixed `code`, a `detail` that says what to do, and the request's id.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "jobs", description = "Train adapters."),
        (name = "datasets", description = "Files to train on, kept by their content."),
        (name = "adapters", description = "What jobs have made, or what was trained elsewhere."),
        (name = "predictions", description = "Ask an adapter, or the base model."),
        (name = "generation", description = "Go on from a text, by an adapter or the base model."),
        (name = "openai", description = "The same for OpenAI's clients. Errors have OpenAI's form there."),
        (name = "base", description = "The frozen base model."),
        (name = "operations", description = "Health, metrics and this document."),
    ),
    components(schemas(Problem)),
    security(("key" = [])),
    modifiers(&BearerAuth),
)]
pub struct ApiDoc;

struct BearerAuth;

impl Modify for BearerAuth {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let description = "A key of this server. A server without keys needs none.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The whole description.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    let mut document = route_groups().merged().into_openapi();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        // an operation that says nothing of security needs a key, and may fail as all of them may
        if operation.security.is_none() {
            let common_responses =
                COMMON_STATUSES.map(|status| (status.to_string(), problem_responses::response_ref(status)));
            operation.responses.responses.extend(common_responses);
        }
    }
    let components = document.components.get_or_insert_default();
    components.responses.extend(problem_responses::response_components());
    openapi_unions::merge_tagged_unions(&mut components.schemas);
    document
}

/// The description as the file `openapi.yaml` holds it.
///
/// # Errors
/// `Internal` only, where the document has no YAML form.
pub fn openapi_yaml() -> Result<String> {
    openapi_document().to_yaml().context("writing the API's description")
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}
