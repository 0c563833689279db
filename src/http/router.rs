//! Puts the resources' routes together, by what they need: nothing, a key, a deadline.
//!
//! Knows nothing of what a route does.

use super::openapi::ApiDoc;
use super::state::AppState;
use super::{
    adapters, base, datasets, docs, events, generate, health, jobs, metrics, middleware_stack, openai, predict,
};
use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The routes in three groups.
pub struct RouteGroups {
    /// For everybody.
    public: OpenApiRouter<AppState>,
    /// With a key, and a deadline for the answer.
    standard: OpenApiRouter<AppState>,
    /// With a key, and a longer deadline: texts take their time.
    generation: OpenApiRouter<AppState>,
    /// With a key; how long the body may take is limited while it is read (`extract::Pace`).
    uploads: OpenApiRouter<AppState>,
}

pub fn route_groups() -> RouteGroups {
    RouteGroups {
        public: OpenApiRouter::new().merge(health::routes()).merge(docs::routes()),
        standard: OpenApiRouter::new()
            .merge(jobs::routes())
            .merge(events::routes())
            .merge(datasets::routes())
            .merge(adapters::routes())
            .merge(predict::routes())
            .merge(base::routes())
            .merge(metrics::routes()),
        generation: OpenApiRouter::new().merge(generate::routes()).merge(openai::routes()),
        uploads: OpenApiRouter::new()
            .merge(jobs::upload_routes())
            .merge(datasets::upload_routes())
            .merge(adapters::upload_routes()),
    }
}

impl RouteGroups {
    pub fn merged(self) -> OpenApiRouter<AppState> {
        OpenApiRouter::with_openapi(ApiDoc::openapi())
            .merge(self.uploads)
            .merge(self.generation)
            .merge(self.standard)
            .merge(self.public)
    }
}

/// The public API.
pub fn router(state: AppState) -> Router {
    let request_timeout = state.settings.request_timeout;
    let generation_timeout = state.settings.generation_timeout;
    let RouteGroups { public, standard, generation, uploads } = route_groups();
    let groups = RouteGroups {
        public: middleware_stack::with_deadline(public, request_timeout),
        standard: middleware_stack::require_auth(
            middleware_stack::with_deadline(standard, request_timeout),
            state.api_keys.clone(),
        ),
        generation: middleware_stack::require_auth(
            middleware_stack::with_deadline(generation, generation_timeout),
            state.api_keys.clone(),
        ),
        uploads: middleware_stack::require_auth(uploads, state.api_keys.clone()),
    };
    build_router(groups.merged(), state)
}

/// What a process answers that only trains: health, and with a key metrics.
pub fn worker_router(state: AppState) -> Router {
    let request_timeout = state.settings.request_timeout;
    let public = middleware_stack::with_deadline(health::routes(), request_timeout);
    let authenticated = middleware_stack::require_auth(
        middleware_stack::with_deadline(metrics::routes(), request_timeout),
        state.api_keys.clone(),
    );
    build_router(public.merge(authenticated), state)
}

fn build_router(routes: OpenApiRouter<AppState>, state: AppState) -> Router {
    let (settings, metrics) = (state.settings.clone(), state.metrics.clone());
    let (router, _) = routes.with_state(state).split_for_parts();
    middleware_stack::apply_middleware(router, &settings, metrics)
}
