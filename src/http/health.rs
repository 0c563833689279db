//! `GET /health`, `/health/live` and `/health/ready`: liveness and readiness checks.

use super::error::{ApiError, ApiResult};
use super::openapi::ServiceUnavailable;
use super::state::AppState;
use axum::Json;
use espalier_core::error::Error;
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Maximum time for the database to commit a write before the server counts as not ready.
const DATABASE_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `live` or `ready`.
    #[schema(example = "ready")]
    pub status: &'static str,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_health)).routes(routes!(get_health_live)).routes(routes!(get_health_ready))
}

/// Readiness check
///
/// The same as `GET /health/ready`, at the path of vLLM, TGI and TEI.
#[utoipa::path(
    get, path = "/health", operation_id = "get_health", tag = "operations", security(()),
    responses((status = 200, description = "The server accepts requests.", body = Health, example = json!({"status": "ready"})), ServiceUnavailable),
)]
async fn get_health(state: AppState) -> ApiResult<Json<Health>> {
    get_health_ready(state).await
}

/// Liveness check
///
/// Answers 200 while the process runs. If it does not answer, restart the process.
#[utoipa::path(
    get, path = "/health/live", operation_id = "get_health_live", tag = "operations", security(()),
    responses((status = 200, description = "The process is running.", body = Health, example = json!({"status": "live"}))),
)]
async fn get_health_live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// Readiness check
///
/// Answers 200 if the database commits a write and the server is not shutting down.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "get_health_ready", tag = "operations", security(()),
    responses((status = 200, description = "The server accepts requests.", body = Health, example = json!({"status": "ready"})), ServiceUnavailable),
)]
async fn get_health_ready(state: AppState) -> ApiResult<Json<Health>> {
    if state.shutdown.is_cancelled() {
        return Err(Error::busy("shutting_down", "the server is shutting down: use another", RETRY_AFTER).into());
    }
    match tokio::time::timeout(DATABASE_WRITE_TIMEOUT, state.store.check_write()).await {
        Ok(Ok(())) => Ok(Json(Health { status: "ready" })),
        Ok(Err(error)) => Err(unreachable_database(&error.to_string())),
        Err(_) => Err(unreachable_database("timeout")),
    }
}

fn unreachable_database(reason: &str) -> ApiError {
    tracing::warn!(reason, "the database did not commit a write");
    Error::busy("database_unreachable", "the database does not answer: try again later", RETRY_AFTER).into()
}
