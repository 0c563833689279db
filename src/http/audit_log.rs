//! `GET /audit`: the audit log.

use super::csv_response;
use super::error::ApiResult;
use super::extract::QueryParams;
use super::openapi::{ServiceUnavailable, UnprocessableEntity};
use super::pagination::{List, PageParams};
use super::state::AppState;
use super::usage::TableFormat;
use crate::store::{AuditEntry, AuditFilter};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Page size; the maximum is a setting of the server.
    #[param(minimum = 1, default = 20)]
    limit: Option<u32>,
    /// `next` of the previous page of this list. The id of anything else is refused (422).
    after: Option<Uuid>,
    /// Owner of the callers.
    owner: Option<String>,
    /// Operation id of the calls.
    #[param(example = "create_job")]
    action: Option<String>,
    /// Earliest time.
    since: Option<DateTime<Utc>>,
    /// Latest time.
    until: Option<DateTime<Utc>>,
    /// Format of the answer. A CSV file has one page of entries; `after` selects the next page.
    #[param(inline)]
    format: Option<TableFormat>,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_audit_entries))
}

/// List the audit log
///
/// Who created, changed or deleted what, newest first. It holds no texts and no keys. Entries are never changed.
#[utoipa::path(
    get, path = "/audit", operation_id = "list_audit_entries", tag = "access", params(AuditQuery),
    responses((status = 200, description = "Page of entries.", content(
        (List<AuditEntry> = "application/json", example = json!({"data": [], "next": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f"})),
        (String = "text/csv"))), UnprocessableEntity, ServiceUnavailable),
)]
async fn list_audit_entries(state: AppState, QueryParams(query): QueryParams<AuditQuery>) -> ApiResult<Response> {
    let page = PageParams::new(query.limit, query.after, &state.settings)?;
    let filter = AuditFilter { owner: query.owner, action: query.action, since: query.since, until: query.until };
    let entries = state.store.audit_entries(&filter, page.to_store_page()).await?;
    let list = page.into_list(entries, |entry| entry.id, |entry| entry);
    match query.format {
        Some(TableFormat::Csv) => Ok(csv_response::write(list.data.into_iter())?),
        Some(TableFormat::Json) | None => Ok(axum::Json(list).into_response()),
    }
}
