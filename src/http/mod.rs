//! The public API: the only room that knows HTTP and the shapes of its JSON.
//!
//! One file per resource; a handler extracts, makes one call and answers. `submit` holds the steps from a request to a
//! queued job, `publish` those from an uploaded zip to an adapter. Knows nothing of SQL, training or the base's insides.

pub mod adapters;
pub mod auth;
pub mod base;
mod check;
pub mod datasets;
mod docs;
pub mod error;
pub mod events;
mod extract;
mod form;
mod format;
mod from_adapter;
pub mod generate;
pub mod health;
pub mod jobs;
mod json;
mod layers;
mod leftover;
mod lists;
mod metrics;
pub mod names;
pub mod openai;
mod openapi;
pub mod predict;
pub mod problem;
mod publish;
mod responses;
mod router;
mod sampling;
mod server;
mod settings;
mod sse;
mod state;
mod submit;
mod tagged;
mod upload;
mod work;

pub use auth::Keys;
pub use metrics::Metrics;
pub use openapi::{document, yaml};
pub use router::{router, worker_router};
pub use server::serve;
pub use settings::Settings;
pub use state::{State, Turns};

#[cfg(test)]
mod tests;
