//! OpenAPI document: the parts that all operations share, added to the operations collected from the routes.
//! Error responses are one reusable component per status code, and one more in OpenAI's format for the operations under `/v1`.
//! Errors that follow from the form of an operation (its body, parameters, method) are added here, so that none is forgotten.

use super::auth::API_KEY;
use super::auth::route_scopes::{Activity, RoutePolicy};
use super::error::{PROBLEM_JSON, Problem};
use super::idempotency_header::IDEMPOTENCY_KEY;
use super::openai_error::{self, OpenAiError};
use crate::store::Scope;
use axum::http::Method;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{AllOf, Object, Schema, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{self, ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "espalier",
        description = "Trains small adapters on one frozen transformer and serves all of them from a single copy of its weights. \
            A training job turns a dataset into an adapter; requests for different adapters share a batch.\n\nEvery error is a \
            problem document (RFC 9457; under /v1 an error in OpenAI's format) with a stable `code`, a `detail` that says what \
            to do, and the request id. Requests whose line and headers are malformed, too slow or too large get 400, 408, 414 or \
            431 on every path, and their connection is closed.\n\nRequest bodies may be compressed (`Content-Encoding`: gzip, deflate or \
            zstd); limits on sizes hold for the decompressed bytes. Repeated and trailing slashes in paths are ignored. The paths of Azure \
            OpenAI, `/openai/v1/…` and `/openai/deployments/{model}/…`, are those under `/v1`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "jobs", description = "Training jobs."),
        (name = "datasets", description = "Training and validation data, stored by content hash."),
        (name = "adapters", description = "Trained and imported adapters."),
        (name = "predictions", description = "Predictions of an adapter or the base model."),
        (name = "generation", description = "Text generation by an adapter or the base model."),
        (name = "embeddings", description = "Embeddings and reranking in the format of Text Embeddings Inference."),
        (name = "openai", description = "OpenAI-compatible generation, embeddings, files and fine-tuning. Errors have OpenAI's format."),
        (name = "access", description = "Keys, owners with their limits, usage and the audit log."),
        (name = "webhooks", description = "URLs that are called when a job ends, signed as in Standard Webhooks."),
        (name = "base", description = "The frozen base model."),
        (name = "operations", description = "Health, metrics and this document."),
    ),
    components(schemas(Problem, OpenAiError)),
    security(("key" = []), ("azure_key" = [])),
    modifiers(&KeyAuth),
)]
pub struct ApiDoc;

struct KeyAuth;

impl Modify for KeyAuth {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let description = "API key of this server, with one of the scopes that an operation names. A server without keys accepts every \
                           request.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
        let header =
            ApiKeyValue::with_description(API_KEY.as_str(), "The same key, as clients of Azure OpenAI send it.");
        components.add_security_scheme("azure_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// Adds the error responses that operations share, and their components, to the document collected from the routes.
pub fn complete_document(mut document: openapi::OpenApi) -> openapi::OpenApi {
    let mut referenced = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let name = method_name(&method);
            if accepts_idempotency_key(path, &method) {
                operation.parameters.get_or_insert_default().push(idempotency_key_parameter().into());
            }
            let statuses = general_error_statuses(method, operation);
            if operation.security.is_none() {
                operation.security = Some(security(name, path));
            }
            let responses = &mut operation.responses.responses;
            for status in statuses {
                responses.entry(status.to_string()).or_insert_with(|| response_ref(status));
            }
            let format = match openai_error::uses_openai_errors(path) {
                true => ErrorFormat::OpenAi,
                false => ErrorFormat::Problem,
            };
            for status in PROBLEM_STATUSES.map(|(status, ..)| status) {
                if responses.remove(&status.to_string()).is_some() {
                    let status = format.status(status);
                    responses.insert(status.to_string(), format.response_ref(status));
                    referenced.insert((format, status));
                }
            }
        }
    }
    let components = document.components.get_or_insert_default();
    let responses =
        referenced.into_iter().map(|(format, status)| (format.component_name(status), format.response(status)));
    components.responses.extend(responses);
    merge_tagged_unions(&mut components.schemas);
    document
}

pub fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let methods = [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Put, &mut item.put),
        (HttpMethod::Patch, &mut item.patch),
        (HttpMethod::Delete, &mut item.delete),
    ];
    methods.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Security of an operation: a key with the scopes of the route, any one of which is enough.
fn security(method: &str, path: &str) -> Vec<SecurityRequirement> {
    let policy = Method::from_bytes(method.as_bytes()).map(|method| RoutePolicy::of(&method, path));
    let scopes: &[Scope] = policy.map_or(&[], |policy| policy.scopes);
    let alternatives: Vec<Vec<&str>> = match scopes.is_empty() {
        true => vec![Vec::new()],
        false => scopes.iter().map(|scope| vec![scope.as_str()]).collect(),
    };
    let schemes = ["key", "azure_key"].into_iter();
    schemes
        .flat_map(|scheme| alternatives.iter().map(move |scopes| SecurityRequirement::new(scheme, scopes.clone())))
        .collect()
}

/// Name of a method in requests.
pub fn method_name(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "GET",
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Options => "OPTIONS",
        HttpMethod::Head => "HEAD",
        HttpMethod::Trace => "TRACE",
    }
}

/// Whether an operation reads `Idempotency-Key`: a POST that changes something.
fn accepts_idempotency_key(path: &str, method: &HttpMethod) -> bool {
    *method == HttpMethod::Post && RoutePolicy::of(&Method::POST, path).activity == Activity::Change
}

fn idempotency_key_parameter() -> Parameter {
    let description = "Key of this request, such as a UUID. The same request with the same key within a day is not carried out again, but gets \
        the first answer with the header `idempotent-replayed: true`. 409 while the first one is in flight; 422 for another request.";
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255)).build()))
        .build()
}

/// Returns the error statuses that follow from the form of an operation.
fn general_error_statuses(method: HttpMethod, operation: &Operation) -> BTreeSet<u16> {
    // The host is not allowed; there are too many connections, or the deadline has passed.
    let mut statuses = BTreeSet::from([421, 503]);
    // An operation without a security entry inherits the document's: it needs a key.
    if operation.security.is_none() {
        statuses.extend([401, 403, 429, 500, 507]);
    }
    if method != HttpMethod::Get {
        statuses.insert(403);
    }
    for parameter in operation.parameters.iter().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        match parameter.parameter_in {
            ParameterIn::Path => statuses.insert(400),
            ParameterIn::Query | ParameterIn::QueryString => statuses.insert(422),
            ParameterIn::Header if parameter.name.eq_ignore_ascii_case(IDEMPOTENCY_KEY.as_str()) => {
                statuses.extend([400, 409, 422]);
                true
            }
            ParameterIn::Header => statuses.insert(422),
            ParameterIn::Cookie => false,
        };
    }
    if let Some(RefOr::T(body)) = &operation.request_body {
        statuses.extend([400, 408, 413, 415]);
        if body.content.contains_key("application/json") {
            statuses.insert(422);
        }
    }
    statuses
}

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Rewrites the variants of tagged unions (`{"type": "lora", …}`) as single objects.
///
/// utoipa describes a variant as `allOf` of the settings and an object with the tag. Where the settings forbid additional
/// properties, no value satisfies both.
fn merge_tagged_unions(schemas: &mut Schemas) {
    let all_schemas = schemas.clone();
    for schema in schemas.values_mut() {
        let RefOr::T(Schema::OneOf(union)) = schema else { continue };
        for item in &mut union.items {
            if let RefOr::T(Schema::AllOf(parts)) = item
                && let Some(merged) = merge_variant(parts, &all_schemas)
            {
                *item = RefOr::T(Schema::Object(merged));
            }
        }
    }
}

/// Merges the settings and the tag into one object; `None` for any other `allOf`.
fn merge_variant(parts: &AllOf, all_schemas: &Schemas) -> Option<Object> {
    let [RefOr::Ref(settings), RefOr::T(Schema::Object(tag))] = parts.items.as_slice() else { return None };
    let name = settings.ref_location.rsplit('/').next()?;
    let RefOr::T(Schema::Object(settings)) = all_schemas.get(name)? else { return None };
    let mut merged = settings.clone();
    for (field, schema) in &tag.properties {
        merged.properties.insert(field.clone(), schema.clone());
    }
    merged.required.extend(tag.required.iter().cloned());
    merged.title = Some(name.to_string());
    Some(merged)
}

/// Reference to the error response of one status code.
pub struct ProblemResponse<const STATUS: u16>;

pub type BadRequest = ProblemResponse<400>;
pub type NotFound = ProblemResponse<404>;
pub type RequestTimeout = ProblemResponse<408>;
pub type Conflict = ProblemResponse<409>;
pub type PayloadTooLarge = ProblemResponse<413>;
pub type UnsupportedMediaType = ProblemResponse<415>;
pub type UnprocessableEntity = ProblemResponse<422>;
pub type ServiceUnavailable = ProblemResponse<503>;

/// Status, component name and description.
const PROBLEM_STATUSES: [(u16, &str, &str); 14] = [
    (400, "BadRequest", "Malformed JSON, form, path or body."),
    (401, "Unauthorized", "The API key is missing or wrong."),
    (
        403,
        "Forbidden",
        "The key lacks the scope of the operation; or a web page of another origin may not do this on a server without API keys, or \
         with a session.",
    ),
    (404, "NotFound", "The resource does not exist, or belongs to another owner."),
    (408, "RequestTimeout", "The request body arrived too slowly."),
    (409, "Conflict", "The operation is not possible in the resource's current state."),
    (413, "PayloadTooLarge", "The request body exceeds the server's limit."),
    (
        415,
        "UnsupportedMediaType",
        "The operation does not accept this content type, or its content encoding or charset is not read.",
    ),
    (421, "MisdirectedRequest", "The request's host is not a name of this server."),
    (422, "UnprocessableEntity", "The request was understood but is invalid; `errors` names the fields or lines."),
    (
        429,
        "TooManyRequests",
        "A limit of the key or of its owner is reached; retry after `Retry-After` seconds. The headers `x-ratelimit-…` are those of \
         OpenAI.",
    ),
    (500, "InternalServerError", "Internal error; the server's log has the cause under the request id."),
    (
        503,
        "ServiceUnavailable",
        "The server is overloaded or shutting down, or its database is unavailable; retry after `Retry-After` seconds.",
    ),
    (507, "InsufficientStorage", "The server's disk is full; retry after `Retry-After` seconds."),
];

impl<const STATUS: u16> IntoResponses for ProblemResponse<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([(STATUS.to_string(), response_ref(STATUS))])
    }
}

/// Reference to the response component of a status; it does not resolve for a status without one.
fn response_ref(status: u16) -> RefOr<Response> {
    ErrorFormat::Problem.response_ref(status)
}

/// Format of the error responses of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ErrorFormat {
    Problem,
    OpenAi,
}

impl ErrorFormat {
    /// Status that is sent for an error.
    fn status(self, status: u16) -> u16 {
        match self {
            Self::OpenAi if status == 422 => 400,
            _ => status,
        }
    }

    fn component_name(self, status: u16) -> String {
        let status = PROBLEM_STATUSES.iter().find(|(candidate, ..)| *candidate == status);
        let name = status.map_or("Unknown", |(_, name, _)| name);
        match self {
            Self::Problem => name.to_string(),
            Self::OpenAi => format!("OpenAi{name}"),
        }
    }

    fn response_ref(self, status: u16) -> RefOr<Response> {
        RefOr::Ref(Ref::from_response_name(self.component_name(status)))
    }

    /// Component that [`Self::response_ref`] refers to.
    fn response(self, status: u16) -> RefOr<Response> {
        let description = PROBLEM_STATUSES.iter().find(|(candidate, ..)| *candidate == status);
        let description = match (self, description) {
            (Self::OpenAi, Some((400, ..))) => "The request is malformed or invalid; `param` names the field.",
            (_, description) => description.map_or("", |(.., description)| description),
        };
        let (content_type, schema) = match self {
            Self::Problem => (PROBLEM_JSON, "Problem"),
            Self::OpenAi => ("application/json", "OpenAiError"),
        };
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let response = ResponseBuilder::new().description(description).content(content_type, content);
        let (name, header_type, description) = match status {
            401 => ("www-authenticate", Type::String, "Authentication scheme to use."),
            429 | 503 | 507 => ("retry-after", Type::Integer, "Seconds to wait before retrying."),
            _ => return response.build().into(),
        };
        let schema = ObjectBuilder::new().schema_type(header_type).build();
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        response.header(name, header).build().into()
    }
}
