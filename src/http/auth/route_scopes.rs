//! Scopes that each route needs. A route that is missing here needs `admin`; a test names those that are missing.

use crate::store::Scope::{self, AdaptersRead, AdaptersWrite, Admin, Generate, Metrics, Predict, Train};
use axum::http::Method;

/// What a route asks of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Any one of these scopes; every valid credential if there is none.
    pub scopes: &'static [Scope],
    pub activity: Activity,
}

/// What a call does, which decides how it is limited and whether the audit log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Reads.
    Read,
    /// Computes predictions or text, which costs tokens.
    Infer,
    /// Computes without tokens.
    Compute,
    /// Creates, changes or deletes; written to the audit log.
    Change,
}

impl RoutePolicy {
    /// Policy of a route by its method and the pattern of its path.
    pub fn of(method: &Method, route: &str) -> Self {
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let entry = POLICIES.iter().find(|(methods, routes, ..)| methods.contains(&method) && routes.contains(&route));
        match entry {
            Some((_, _, scopes, activity)) => Self { scopes, activity: *activity },
            None => Self { scopes: &[Admin], activity: Activity::Change },
        }
    }

    /// Whether the table has the route.
    pub fn is_listed(method: &str, route: &str) -> bool {
        POLICIES.iter().any(|(methods, routes, ..)| methods.contains(&method) && routes.contains(&route))
    }
}

type Policy = (&'static [&'static str], &'static [&'static str], &'static [Scope], Activity);

const ANY: &[Scope] = &[];

const POLICIES: &[Policy] = &[
    (
        &["POST"],
        &["/predict", "/embed", "/rerank", "/similarity", "/v1/embeddings", "/v1/rerank"],
        &[Predict],
        Activity::Infer,
    ),
    (&["POST"], &["/tokenize", "/detokenize"], &[Predict, Generate], Activity::Compute),
    (&["GET"], &["/tokenizer_info"], &[Predict, Generate], Activity::Read),
    (
        &["POST"],
        &["/generate", "/v1/chat/completions", "/v1/completions", "/v1/responses"],
        &[Generate],
        Activity::Infer,
    ),
    (&["GET"], &["/base", "/info", "/keys/current", "/usage"], ANY, Activity::Read),
    (&["GET"], &["/v1/models", "/v1/models/{model}"], &[Predict, Generate, AdaptersRead, Train], Activity::Read),
    (
        &["GET"],
        &[
            "/jobs",
            "/jobs/{id}",
            "/jobs/{id}/events",
            "/jobs/{id}/validation-examples",
            "/datasets",
            "/datasets/{id}",
            "/datasets/{id}/examples",
            "/v1/files",
            "/v1/files/{id}",
            "/v1/files/{id}/content",
            "/v1/fine_tuning/jobs",
            "/v1/fine_tuning/jobs/{id}",
            "/v1/fine_tuning/jobs/{id}/events",
            "/v1/fine_tuning/jobs/{id}/checkpoints",
            "/webhooks",
            "/webhooks/{id}",
            "/webhooks/{id}/deliveries",
        ],
        &[Train],
        Activity::Read,
    ),
    (
        &["POST"],
        &[
            "/jobs",
            "/jobs/{id}/cancel",
            "/jobs/{id}/pause",
            "/jobs/{id}/resume",
            "/jobs/{id}/retry",
            "/datasets",
            "/v1/files",
            "/v1/fine_tuning/jobs",
            "/v1/fine_tuning/jobs/{id}/cancel",
            "/v1/fine_tuning/jobs/{id}/pause",
            "/v1/fine_tuning/jobs/{id}/resume",
            "/webhooks",
            "/webhooks/{id}/enable",
            "/webhooks/{id}/test",
            "/webhooks/{id}/deliveries/{delivery_id}/resend",
        ],
        &[Train],
        Activity::Change,
    ),
    (&["DELETE"], &["/jobs/{id}", "/datasets/{id}", "/v1/files/{id}", "/webhooks/{id}"], &[Train], Activity::Change),
    (
        &["GET"],
        &[
            "/bases",
            "/adapters",
            "/adapters/{id}",
            "/adapters/{id}/download",
            "/adapters/{id}/lineage",
            "/adapters/{id}/shares",
            "/shared-adapters",
        ],
        &[AdaptersRead],
        Activity::Read,
    ),
    (
        &["POST", "DELETE", "PUT"],
        &[
            "/adapters",
            "/adapters/{id}",
            "/adapters/{id}/activate",
            "/adapters/{id}/shares",
            "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
        ],
        &[AdaptersWrite],
        Activity::Change,
    ),
    (&["GET"], &["/metrics"], &[Metrics], Activity::Read),
    (&["GET"], &["/keys", "/keys/{id}", "/owners", "/owners/{owner}", "/audit"], &[Admin], Activity::Read),
    (&["POST", "DELETE"], &["/keys", "/keys/{id}", "/keys/{id}/rotate"], &[Admin], Activity::Change),
    (&["PUT", "DELETE"], &["/owners/{owner}"], &[Admin], Activity::Change),
];
