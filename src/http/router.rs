//! Puts the resources' routes together, by what they need: nothing, a key, a deadline.
//!
//! Knows nothing of what a route does.

use super::openapi::Description;
use super::state::State;
use super::{adapters, base, datasets, docs, events, generate, health, jobs, layers, metrics, openai, predict};
use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The routes in three groups.
pub struct Api {
    /// For everybody.
    open: OpenApiRouter<State>,
    /// With a key, and a deadline for the answer.
    timed: OpenApiRouter<State>,
    /// With a key, and a longer deadline: texts take their time.
    long: OpenApiRouter<State>,
    /// With a key; how long the body may take is limited while it is read (`extract::Pace`).
    uploads: OpenApiRouter<State>,
}

pub fn api() -> Api {
    Api {
        open: OpenApiRouter::new().merge(health::routes()).merge(docs::routes()),
        timed: OpenApiRouter::new()
            .merge(jobs::routes())
            .merge(events::routes())
            .merge(datasets::routes())
            .merge(adapters::routes())
            .merge(predict::routes())
            .merge(base::routes())
            .merge(metrics::routes()),
        long: OpenApiRouter::new().merge(generate::routes()).merge(openai::routes()),
        uploads: OpenApiRouter::new().merge(jobs::uploads()).merge(datasets::uploads()).merge(adapters::uploads()),
    }
}

impl Api {
    pub fn all(self) -> OpenApiRouter<State> {
        OpenApiRouter::with_openapi(Description::openapi())
            .merge(self.uploads)
            .merge(self.long)
            .merge(self.timed)
            .merge(self.open)
    }
}

/// The public API.
pub fn router(state: State) -> Router {
    let deadline = state.settings.deadline;
    let generation = state.settings.generation_deadline;
    let Api { open, timed, long, uploads } = api();
    let api = Api {
        open: layers::timed(open, deadline),
        timed: layers::guarded(layers::timed(timed, deadline), state.keys.clone()),
        long: layers::guarded(layers::timed(long, generation), state.keys.clone()),
        uploads: layers::guarded(uploads, state.keys.clone()),
    };
    dressed(api.all(), state)
}

/// What a process answers that only trains: health, and with a key metrics.
pub fn worker_router(state: State) -> Router {
    let deadline = state.settings.deadline;
    let open = layers::timed(health::routes(), deadline);
    let guarded = layers::guarded(layers::timed(metrics::routes(), deadline), state.keys.clone());
    dressed(open.merge(guarded), state)
}

fn dressed(routes: OpenApiRouter<State>, state: State) -> Router {
    let (settings, metrics) = (state.settings.clone(), state.metrics.clone());
    let (router, _) = routes.with_state(state).split_for_parts();
    layers::dress(router, &settings, metrics)
}
