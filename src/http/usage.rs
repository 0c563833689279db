//! `GET /usage`: requests and tokens by owner, adapter and day.

use super::auth::Caller;
use super::auth::access::now;
use super::csv_response;
use super::error::{ApiError, ApiResult};
use super::extract::QueryParams;
use super::openapi::{ServiceUnavailable, UnprocessableEntity};
use super::state::AppState;
use crate::store::{Scope, UsageRow};
use axum::response::{IntoResponse, Response};
use chrono::{Days, NaiveDate};
use espalier_core::error::{Error, Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Days of a report without `since`.
const DEFAULT_DAYS: u64 = 30;

/// Days of the longest report.
const MAX_DAYS: i64 = 366;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// First day, UTC. Default: 30 days before the last.
    #[param(value_type = Option<String>, example = "2026-01-01")]
    since: Option<NaiveDate>,
    /// Last day, UTC; at most 366 days after the first. Default: today.
    #[param(value_type = Option<String>, example = "2026-01-31")]
    until: Option<NaiveDate>,
    /// Owner; `*` stands for all. Other owners than the caller's need the scope `admin`. By default that of the caller.
    owner: Option<String>,
    /// Format of the answer.
    #[param(inline)]
    format: Option<TableFormat>,
}

/// Format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableFormat {
    Json,
    Csv,
}

/// Usage of one adapter by one owner on one day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DailyUsage)]
pub struct UsageView {
    #[schema(value_type = String, example = "2026-01-05")]
    pub day: NaiveDate,
    pub owner: String,
    /// Name or id of the adapter; `null` for the base model.
    pub adapter: Option<String>,
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

impl From<UsageRow> for UsageView {
    fn from(row: UsageRow) -> Self {
        Self {
            day: row.day,
            owner: row.owner,
            adapter: Some(row.adapter).filter(|adapter| !adapter.is_empty()),
            requests: row.counts.requests,
            input_tokens: row.counts.input_tokens,
            output_tokens: row.counts.output_tokens,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"data": [{"day": "2026-01-05", "owner": "acme", "adapter": "support-intents", "requests": 1200,
    "input_tokens": 38400, "output_tokens": 0}]}))]
pub struct UsageReport {
    pub data: Vec<UsageView>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_usage))
}

/// Get the usage
///
/// Requests for predictions and generated text with their tokens, by day, owner and adapter. What was used in the last seconds may be
/// missing.
#[utoipa::path(
    get, path = "/usage", operation_id = "get_usage", tag = "access", params(UsageQuery),
    responses((status = 200, description = "Usage by day, owner and adapter.", content(
        (UsageReport = "application/json"), (String = "text/csv"))), UnprocessableEntity, ServiceUnavailable),
)]
async fn get_usage(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<UsageQuery>,
) -> ApiResult<Response> {
    let until = query.until.unwrap_or_else(|| now().date_naive());
    let since = query.since.or_else(|| until.checked_sub_days(Days::new(DEFAULT_DAYS))).unwrap_or(until);
    if until < since || until.signed_duration_since(since).num_days() > MAX_DAYS {
        let message = format!("must be a day before \"until\" and at most {MAX_DAYS} days before it");
        return Err(Error::Invalid(Problem::at_field("invalid_query", "/since", message)).into());
    }
    let owner = query.owner.as_deref().unwrap_or(&caller.owner);
    if owner != caller.owner && !caller.credential.scopes.contains(Scope::Admin) {
        return Err(ApiError::missing_scope(Scope::Admin.as_str()));
    }
    let rows = state.store.usage((owner != "*").then_some(owner), since, until).await?;
    let rows = rows.into_iter().map(UsageView::from);
    match query.format {
        Some(TableFormat::Csv) => Ok(csv_response::write(rows)?),
        Some(TableFormat::Json) | None => Ok(axum::Json(UsageReport { data: rows.collect() }).into_response()),
    }
}
