//! The public API: the only room that knows HTTP and the shapes of its JSON.
//!
//! One file per resource; a handler extracts, makes one call and answers. `submit` holds the steps from a request to a
//! queued job, `publish` those from an uploaded zip to an adapter. Knows nothing of SQL, training or the base's insides.

mod adapter_import;
pub mod adapters;
pub mod auth;
pub mod base;
mod dataset_check;
pub mod datasets;
mod docs;
mod drain_body;
pub mod error;
pub mod events;
mod extract;
pub mod generate;
pub mod health;
mod initial_adapter;
mod job_submission;
pub mod jobs;
mod json;
mod metrics;
mod middleware_stack;
mod multipart;
pub mod openai;
mod openapi;
mod openapi_unions;
mod pagination;
pub mod predict;
pub mod problem;
mod problem_responses;
pub mod resource_name;
mod response_format;
mod router;
mod sampling_options;
mod server;
mod settings;
mod spawn;
mod sse;
mod state;
mod upload;

pub use auth::ApiKeys;
pub use metrics::Metrics;
pub use openapi::{openapi_document, openapi_yaml};
pub use router::{router, worker_router};
pub use server::serve;
pub use settings::Settings;
pub use state::{AppState, ConcurrencyLimits};

#[cfg(test)]
mod tests;
