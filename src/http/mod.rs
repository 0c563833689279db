//! Public HTTP API: routes, request and response types, authentication, error rendering and the OpenAPI document.
//!
//! Each resource has a module with its handlers; a handler extracts its arguments, makes one call and converts the result.

mod access_sync;
pub mod adapters;
mod allowed_hosts;
mod audit_log;
pub mod auth;
pub mod base;
mod body_memory;
mod body_timeouts;
mod client_address;
mod connection;
mod cors;
mod cross_origin;
mod csv_response;
mod dashboard;
pub mod datasets;
mod docs;
mod drain_body;
mod embeddings;
pub mod error;
pub mod events;
mod extract;
pub mod generation;
mod guarded_body;
pub mod health;
mod inference;
pub mod job_metrics;
pub mod jobs;
mod json;
mod jwt;
pub mod keys;
mod metrics;
mod metrics_endpoint;
mod middleware_stack;
mod multipart;
pub mod openai;
mod openai_error;
mod openapi;
pub mod owners;
mod pagination;
pub mod predict;
mod process_metrics;
mod request_decompression;
mod request_id;
mod request_path;
pub mod resource_name;
mod response_compression;
mod router;
mod server;
mod session;
mod spawn;
mod sse;
mod state;
mod tokenize;
mod upload;
pub mod usage;

pub use access_sync::AccessSync;
pub use allowed_hosts::AllowedHosts;
pub use auth::authenticator::TokenSupport;
pub use auth::route_scopes::RoutePolicy;
pub use auth::{Access, Authenticator};
pub use client_address::ForwardedFor;
pub use connection::ConnectionSettings;
pub use cors::CorsOrigins;
pub use job_metrics::JobMetrics;
pub use jwt::{ClaimMapping, JwksSource, JwtClaims, JwtError, JwtSettings, JwtVerifier, ScopeMapping};
pub use metrics::Metrics;
pub use router::{openapi_document, openapi_yaml, operations, router, worker_router};
pub use server::serve;
pub use state::{AdapterImports, AppState, ConcurrencyLimits, Settings};
pub use usage::UsageCounters;

#[cfg(test)]
mod tests;
