//! `/adapters`: list, get, activate, delete, download and import adapters.

mod download;
pub mod import;
mod import_request;
mod lineage;
mod shares;
pub mod source;
mod view;

pub use download::DownloadQuery;
pub use import_request::{AdapterForm, AdapterImport, AdapterQuery, AdapterRequest, AdapterSourceRequest};
pub use view::{AdapterVersion, AdapterView};

use super::auth::Caller;
use super::error::ApiResult;
use super::extract::{PathParam, QueryParams};
use super::openapi::{
    BadRequest, Conflict, NotFound, PayloadTooLarge, RequestTimeout, ServiceUnavailable, UnprocessableEntity,
    UnsupportedMediaType,
};
use super::pagination::{List, ListQuery, PageParams};
use super::spawn::spawn_detached;
use super::state::AppState;
use super::upload::Binary;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_adapters))
        .routes(routes!(get_adapter, delete_adapter))
        .routes(routes!(activate_adapter))
        .routes(routes!(download_adapter))
        .merge(lineage::routes())
        .merge(shares::routes())
}

pub fn upload_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_adapter))
}

/// Import an adapter
///
/// A zip or `.tar.gz` with the files of PEFT, of AdapterHub (bottleneck adapters saved with `use_safetensors=True`) or of an adapter
/// downloaded from this server; or JSON that names a repository on the Hugging Face Hub or a path on the server. An adapter is
/// rejected if tensors are missing, unexpected or misshapen, if it was trained on another base model, or if it has no effect on the
/// base model's output.
#[utoipa::path(
    post, path = "/adapters", operation_id = "create_adapter", tag = "adapters", params(AdapterQuery),
    request_body(content(
        (Binary = "application/zip"), (Binary = "application/gzip"), (AdapterForm = "multipart/form-data"),
        (AdapterSourceRequest = "application/json"),
    )),
    responses(
        (status = 201, description = "The imported adapter.", body = AdapterView,
            headers(("location" = String, description = "Path of the adapter: `/adapters/{id}`."))),
        BadRequest, NotFound, RequestTimeout, PayloadTooLarge, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn create_adapter(state: AppState, caller: Caller, request: AdapterImport) -> ApiResult<Response> {
    let adapter = import::import_adapter(&state, &caller, request).await?;
    let location = [(LOCATION, format!("/adapters/{}", adapter.id))];
    Ok((StatusCode::CREATED, location, Json(AdapterView::from(adapter))).into_response())
}

/// List adapters
///
/// The owner's adapters, newest first. With a key that is restricted to adapters, a page may be shorter than `limit`.
#[utoipa::path(
    get, path = "/adapters", operation_id = "list_adapters", tag = "adapters", params(ListQuery),
    responses((status = 200, description = "Page of adapters.", body = List<AdapterView>,
        example = json!({"data": [], "next": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f"})), UnprocessableEntity, ServiceUnavailable),
)]
async fn list_adapters(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> ApiResult<Json<List<AdapterView>>> {
    let page_request = PageParams::new(query.limit, query.after, &state.settings)?;
    let adapters = state.store.adapters(&caller.owner, page_request.to_store_page()).await?;
    let mut list = page_request.into_list(adapters, |adapter| adapter.id, AdapterView::from);
    list.data.retain(|adapter| caller.allows(&caller.owner, adapter.name.as_deref()));
    Ok(Json(list))
}

/// Get an adapter
#[utoipa::path(
    get, path = "/adapters/{id}", operation_id = "get_adapter", tag = "adapters",
    params(("id" = String, Path, description = "Adapter: an id, a name or `name@version`.", example = "support-intents")),
    responses((status = 200, description = "The adapter.", body = AdapterView), NotFound, UnprocessableEntity, ServiceUnavailable),
)]
async fn get_adapter(state: AppState, caller: Caller, PathParam(key): PathParam) -> ApiResult<Json<AdapterView>> {
    let reference = caller.adapter_reference(state.store.as_ref(), &key).await?;
    let adapter = state.store.adapter(&caller.owner, &reference).await?;
    Ok(Json(adapter.into()))
}

/// Activate an adapter
///
/// Its name refers to it from then on, until another adapter with that name is created or activated. Requests in flight are answered by
/// the adapter that they began with; other processes follow within a second.
#[utoipa::path(
    post, path = "/adapters/{id}/activate", operation_id = "activate_adapter", tag = "adapters",
    params(("id" = String, Path, description = "Adapter: an id or `name@version`.", example = "support-intents@6f1ed002")),
    responses((status = 200, description = "The adapter.", body = AdapterView), NotFound, Conflict, UnprocessableEntity, ServiceUnavailable),
)]
async fn activate_adapter(state: AppState, caller: Caller, PathParam(key): PathParam) -> ApiResult<Json<AdapterView>> {
    let reference = caller.adapter_reference(state.store.as_ref(), &key).await?;
    let adapter = state.store.resolve_adapter(&caller.owner, &reference).await?;
    Ok(Json(state.store.activate_adapter(&caller.owner, adapter.id).await?.into()))
}

/// Delete an adapter
///
/// If the name refers to it, the name then refers to the newest remaining adapter with that name. Requests in flight are answered. An adapter that an
/// unfinished job starts from cannot be deleted (409).
#[utoipa::path(
    delete, path = "/adapters/{id}", operation_id = "delete_adapter", tag = "adapters",
    params(("id" = String, Path, description = "Adapter: an id, a name or `name@version`.", example = "support-intents")),
    responses((status = 204, description = "The adapter is deleted."), NotFound, Conflict, UnprocessableEntity, ServiceUnavailable),
)]
async fn delete_adapter(state: AppState, caller: Caller, PathParam(key): PathParam) -> ApiResult<StatusCode> {
    let reference = caller.adapter_reference(state.store.as_ref(), &key).await?;
    let deletion = async move { import::delete_adapter(&state, &caller.owner, &reference).await };
    spawn_detached("deleting an adapter", deletion).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Download an adapter
///
/// A zip that `peft` can load: `adapter_config.json`, `adapter_model.safetensors`, and `espalier.json` with what PEFT's files
/// cannot express. With `format=adapterhub`, a zip that AdapterHub's `adapters` can load (bottleneck adapters and their head).
#[utoipa::path(
    get, path = "/adapters/{id}/download", operation_id = "download_adapter", tag = "adapters",
    params(("id" = String, Path, description = "Adapter: an id, a name or `name@version`.", example = "support-intents"), DownloadQuery),
    responses(
        (status = 200, description = "Zip of the adapter's files.", body = Binary, content_type = "application/zip"),
        NotFound, Conflict, UnprocessableEntity, ServiceUnavailable,
    ),
)]
async fn download_adapter(
    state: AppState,
    caller: Caller,
    PathParam(key): PathParam,
    QueryParams(query): QueryParams<DownloadQuery>,
) -> ApiResult<Response> {
    let reference = caller.adapter_reference(state.store.as_ref(), &key).await?;
    let adapter = state.store.adapter(&caller.owner, &reference).await?;
    Ok(download::download(&state, adapter, query.format).await?)
}
