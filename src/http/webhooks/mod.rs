//! `/webhooks`: endpoints of an owner that are called when its jobs end, and their deliveries.

mod request;

pub use request::{CreatedWebhook, NewWebhookRequest};

use super::auth::Caller;
use super::error::ApiResult;
use super::extract::{Json, PathId, PathIds, QueryParams};
use super::openapi::{
    BadRequest, Conflict, NotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, UnprocessableEntity,
    UnsupportedMediaType,
};
use super::pagination::{List, ListQuery, PageParams};
use super::state::AppState;
use crate::store::{Webhook, WebhookDelivery};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create_webhook, list_webhooks))
        .routes(routes!(get_webhook, delete_webhook))
        .routes(routes!(enable_webhook))
        .routes(routes!(test_webhook))
        .routes(routes!(list_webhook_deliveries))
        .routes(routes!(resend_webhook_delivery))
}

/// Create a webhook
///
/// Its URL is called with POST when a job of this owner ends. The calls are signed as in Standard Webhooks, with the secret that this answer
/// shows once.
#[utoipa::path(
    post, path = "/webhooks", operation_id = "create_webhook", tag = "webhooks", request_body = NewWebhookRequest,
    responses(
        (status = 201, description = "The webhook with its secret.", body = CreatedWebhook,
            headers(("location" = String, description = "Path of the webhook: `/webhooks/{id}`."))),
        BadRequest, RequestTimeout, Conflict, PayloadTooLarge, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn create_webhook(
    state: AppState,
    caller: Caller,
    Json(request): Json<NewWebhookRequest>,
) -> ApiResult<Response> {
    let (webhook, secret) =
        request.into_webhook(caller.new_object_id.get(), caller.owner, &state.webhooks.addresses)?;
    let webhook = state.store.add_webhook(webhook, state.webhooks.max_webhooks).await?;
    let headers = [(LOCATION, format!("/webhooks/{}", webhook.id)), (CACHE_CONTROL, "no-store".to_string())];
    Ok((StatusCode::CREATED, headers, axum::Json(CreatedWebhook { webhook, secret })).into_response())
}

/// List webhooks
///
/// Newest first.
#[utoipa::path(
    get, path = "/webhooks", operation_id = "list_webhooks", tag = "webhooks", params(ListQuery),
    responses((status = 200, description = "Page of webhooks.", body = List<Webhook>,
        example = json!({"data": [], "next": null})), UnprocessableEntity, ServiceUnavailable),
)]
async fn list_webhooks(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> ApiResult<axum::Json<List<Webhook>>> {
    let page_request = PageParams::new(query.limit, query.after, &state.settings)?;
    let webhooks = state.store.webhooks(&caller.owner, page_request.to_store_page()).await?;
    Ok(axum::Json(page_request.into_list(webhooks, |webhook| webhook.id, |webhook| webhook)))
}

/// Get a webhook
#[utoipa::path(
    get, path = "/webhooks/{id}", operation_id = "get_webhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "Webhook id.")),
    responses((status = 200, description = "The webhook, without its secret.", body = Webhook), NotFound, ServiceUnavailable),
)]
async fn get_webhook(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<axum::Json<Webhook>> {
    Ok(axum::Json(state.store.webhook(&caller.owner, id).await?))
}

/// Delete a webhook
///
/// Deletes it with its deliveries; pending ones are not sent.
#[utoipa::path(
    delete, path = "/webhooks/{id}", operation_id = "delete_webhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "Webhook id.")),
    responses((status = 204, description = "The webhook is deleted."), NotFound, ServiceUnavailable),
)]
async fn delete_webhook(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<StatusCode> {
    state.store.delete_webhook(&caller.owner, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Enable a webhook
///
/// Calls a webhook again that was disabled after too many failures. What happened meanwhile is not sent.
#[utoipa::path(
    post, path = "/webhooks/{id}/enable", operation_id = "enable_webhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "Webhook id.")),
    responses((status = 200, description = "The webhook.", body = Webhook), NotFound, ServiceUnavailable),
)]
async fn enable_webhook(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<axum::Json<Webhook>> {
    Ok(axum::Json(state.store.enable_webhook(&caller.owner, id).await?))
}

/// Test a webhook
///
/// Queues a delivery of the event `webhook.test`. `GET /webhooks/{id}/deliveries` shows its outcome.
#[utoipa::path(
    post, path = "/webhooks/{id}/test", operation_id = "test_webhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "Webhook id.")),
    responses((status = 202, description = "The delivery is queued.", body = WebhookDelivery), NotFound, Conflict, ServiceUnavailable),
)]
async fn test_webhook(state: AppState, caller: Caller, PathId(id): PathId) -> ApiResult<Response> {
    let delivery = state.store.add_test_delivery(&caller.owner, id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(delivery)).into_response())
}

/// List the deliveries of a webhook
///
/// Newest first. Deliveries are deleted some time after they end.
#[utoipa::path(
    get, path = "/webhooks/{id}/deliveries", operation_id = "list_webhook_deliveries", tag = "webhooks",
    params(("id" = Uuid, Path, description = "Webhook id."), ListQuery),
    responses((status = 200, description = "Page of deliveries.", body = List<WebhookDelivery>,
        example = json!({"data": [], "next": null})), NotFound, UnprocessableEntity, ServiceUnavailable),
)]
async fn list_webhook_deliveries(
    state: AppState,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(query): QueryParams<ListQuery>,
) -> ApiResult<axum::Json<List<WebhookDelivery>>> {
    let page_request = PageParams::new(query.limit, query.after, &state.settings)?;
    let deliveries = state.store.deliveries(&caller.owner, id, page_request.to_store_page()).await?;
    Ok(axum::Json(page_request.into_list(deliveries, |delivery| delivery.id, |delivery| delivery)))
}

/// Send a delivery again
///
/// Queues a delivery that has ended, with the same id and payload.
#[utoipa::path(
    post, path = "/webhooks/{id}/deliveries/{delivery_id}/resend", operation_id = "resend_webhook_delivery", tag = "webhooks",
    params(
        ("id" = Uuid, Path, description = "Webhook id."),
        ("delivery_id" = Uuid, Path, description = "Delivery id."),
    ),
    responses((status = 202, description = "The delivery is queued.", body = WebhookDelivery), NotFound, Conflict, ServiceUnavailable),
)]
async fn resend_webhook_delivery(
    state: AppState,
    caller: Caller,
    PathIds(id, delivery): PathIds,
) -> ApiResult<Response> {
    let delivery = state.store.resend_delivery(&caller.owner, id, delivery).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(delivery)).into_response())
}
