//! Router: groups the routes by authentication and deadline, and collects the OpenAPI document from them.

use super::auth::audit::Operations;
use super::idempotency::with_idempotency;
use super::middleware_stack::{apply_middleware, require_auth, with_deadline};
use super::openapi::{self, ApiDoc};
use super::state::AppState;
use super::{
    adapters, audit_log, base, dashboard, datasets, docs, embeddings, events, generation, health, jobs, keys,
    metrics_endpoint, openai, owner_deletion, owners, predict, session, tokenize, usage, webhooks,
};
use axum::Router;
use espalier_core::error::{Context, Result};
use std::sync::Arc;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// Routes by the middleware that they need.
struct RouteGroups {
    /// Without authentication.
    public: OpenApiRouter<AppState>,
    /// With authentication and the standard deadline.
    standard: OpenApiRouter<AppState>,
    /// With authentication and the longer deadline of generation.
    generation: OpenApiRouter<AppState>,
    /// With authentication and no deadline; the time to receive the body is limited by `extract::BodyTimeouts`.
    uploads: OpenApiRouter<AppState>,
}

fn route_groups() -> RouteGroups {
    RouteGroups {
        public: OpenApiRouter::new()
            .merge(health::routes())
            .merge(docs::routes())
            .merge(dashboard::routes())
            .merge(session::routes()),
        standard: OpenApiRouter::new()
            .merge(jobs::routes())
            .merge(events::routes())
            .merge(datasets::routes())
            .merge(adapters::routes())
            .merge(predict::routes())
            .merge(embeddings::routes())
            .merge(tokenize::routes())
            .merge(keys::routes())
            .merge(owners::routes())
            .merge(owner_deletion::routes())
            .merge(usage::routes())
            .merge(audit_log::routes())
            .merge(webhooks::routes())
            .merge(base::routes())
            .merge(metrics_endpoint::routes()),
        generation: OpenApiRouter::new().merge(generation::routes()).merge(openai::routes()),
        uploads: OpenApiRouter::new()
            .merge(jobs::upload_routes())
            .merge(datasets::upload_routes())
            .merge(adapters::upload_routes())
            .merge(openai::upload_routes()),
    }
}

impl RouteGroups {
    fn merged(self) -> OpenApiRouter<AppState> {
        OpenApiRouter::with_openapi(ApiDoc::openapi())
            .merge(self.uploads)
            .merge(self.generation)
            .merge(self.standard)
            .merge(self.public)
    }
}

/// Router of the whole public API.
pub fn router(state: AppState) -> Router {
    let request_timeout = state.settings.request_timeout;
    let generation_timeout = state.settings.generation_timeout;
    let protect = |routes| require_auth(with_idempotency(routes, &state), state.access.clone());
    let RouteGroups { public, standard, generation, uploads } = route_groups();
    let groups = RouteGroups {
        public: with_deadline(public, request_timeout),
        standard: protect(with_deadline(standard, request_timeout)),
        generation: protect(with_deadline(generation, generation_timeout)),
        uploads: protect(uploads),
    };
    build_router(groups.merged(), state)
}

/// Router of a process that only trains: health checks, and metrics behind authentication.
pub fn worker_router(state: AppState) -> Router {
    let request_timeout = state.settings.request_timeout;
    let public = with_deadline(health::routes(), request_timeout);
    let authenticated = require_auth(with_deadline(metrics_endpoint::routes(), request_timeout), state.access.clone());
    build_router(public.merge(authenticated), state)
}

fn build_router(routes: OpenApiRouter<AppState>, state: AppState) -> Router {
    let (settings, access, metrics) = (state.settings.clone(), state.access.clone(), state.metrics.clone());
    let (router, _) = routes.with_state(state).split_for_parts();
    apply_middleware(router, &settings, &access.authenticator, metrics)
}

/// OpenAPI document of all routes.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    openapi::complete_document(route_groups().merged().into_openapi())
}

/// OpenAPI document as YAML, the content of `openapi.yaml`.
///
/// # Errors
/// `Internal` if the document cannot be serialized.
pub fn openapi_yaml() -> Result<String> {
    openapi_document().to_yaml().context("serializing the OpenAPI document")
}

/// Operation ids, by method and route.
pub fn operations() -> Operations {
    let document = route_groups().merged().into_openapi();
    let ids = document.paths.paths.into_iter().flat_map(|(path, mut item)| {
        let ids = openapi::operations(&mut item).filter_map(|(method, operation)| {
            Some(((openapi::method_name(&method).to_string(), path.clone()), operation.operation_id.clone()?))
        });
        ids.collect::<Vec<_>>()
    });
    Arc::new(ids.collect())
}
