//! `/adapters/{id}/shares` and `/shared-adapters`: adapters that other owners may read and use.

use super::view::AdapterView;
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::http::openapi::{
    BadRequest, NotFound, RequestTimeout, ServiceUnavailable, UnprocessableEntity, UnsupportedMediaType,
};
use crate::http::owners::parse_owner;
use crate::http::pagination::{List, ListQuery, PageParams};
use crate::http::state::AppState;
use crate::store::{Adapter, Reference, adapter_not_found};
use espalier_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Most owners that an adapter is shared with by name.
const MAX_OWNERS: usize = 1000;

/// Stands for all owners in the database.
const EVERYONE: &str = "*";

/// Owners that may read and use an adapter.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"owners": ["acme", "globex"], "everyone": false}))]
pub struct AdapterShares {
    /// Names of owners.
    #[schema(max_items = 1000)]
    pub owners: Vec<String>,
    /// Whether every owner may use it.
    pub everyone: bool,
}

/// Adapter that another owner shares.
#[derive(Debug, Serialize, ToSchema)]
pub struct SharedAdapterView {
    /// Owner that shares it. `owner/name` refers to it.
    pub owner: String,
    #[serde(flatten)]
    pub adapter: AdapterView,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_adapter_shares, set_adapter_shares)).routes(routes!(list_shared_adapters))
}

/// Get the shares of an adapter
#[utoipa::path(
    get, path = "/adapters/{id}/shares", operation_id = "get_adapter_shares", tag = "adapters",
    params(("id" = String, Path, description = "Adapter: an id, a name or `name@version`.", example = "support-intents")),
    responses((status = 200, description = "Owners that may use the adapter.", body = AdapterShares), NotFound, UnprocessableEntity,
        ServiceUnavailable),
)]
async fn get_adapter_shares(
    state: AppState,
    caller: Caller,
    PathParam(key): PathParam,
) -> ApiResult<axum::Json<AdapterShares>> {
    let adapter = own_adapter(&state, &caller, &key).await?;
    Ok(axum::Json(read_shares(&state, &adapter).await?))
}

/// Share an adapter
///
/// Replaces the owners that may read, download and use this version of the adapter. They refer to it by its id or, while its name refers to
/// it, by `owner/name`. They cannot change it; only its owner can.
#[utoipa::path(
    put, path = "/adapters/{id}/shares", operation_id = "set_adapter_shares", tag = "adapters", request_body = AdapterShares,
    params(("id" = String, Path, description = "Adapter: an id, a name or `name@version`.", example = "support-intents")),
    responses((status = 200, description = "Owners that may use the adapter.", body = AdapterShares), BadRequest, NotFound,
        RequestTimeout, UnsupportedMediaType, UnprocessableEntity, ServiceUnavailable),
)]
async fn set_adapter_shares(
    state: AppState,
    caller: Caller,
    PathParam(key): PathParam,
    Json(shares): Json<AdapterShares>,
) -> ApiResult<axum::Json<AdapterShares>> {
    let adapter = own_adapter(&state, &caller, &key).await?;
    let grantees = to_grantees(shares)?;
    state.store.share_adapter(&caller.owner, adapter.id, &grantees).await?;
    Ok(axum::Json(read_shares(&state, &adapter).await?))
}

/// List shared adapters
///
/// Adapters of other owners that the caller may use, newest first.
#[utoipa::path(
    get, path = "/shared-adapters", operation_id = "list_shared_adapters", tag = "adapters", params(ListQuery),
    responses((status = 200, description = "Page of adapters.", body = List<SharedAdapterView>,
        example = json!({"data": [], "next": "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f"})), UnprocessableEntity, ServiceUnavailable),
)]
async fn list_shared_adapters(
    state: AppState,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> ApiResult<axum::Json<List<SharedAdapterView>>> {
    let page = PageParams::new(query.limit, query.after, &state.settings)?;
    let adapters = state.store.shared_adapters(&caller.owner, page.to_store_page()).await?;
    let view = |adapter: Adapter| SharedAdapterView { owner: adapter.owner.clone(), adapter: adapter.into() };
    let mut list = page.into_list(adapters, |adapter| adapter.id, view);
    list.data.retain(|shared| caller.allows(&shared.owner, shared.adapter.name.as_deref()));
    Ok(axum::Json(list))
}

/// An adapter that belongs to the caller.
async fn own_adapter(state: &AppState, caller: &Caller, key: &str) -> Result<Adapter> {
    let reference = caller.adapter_reference(state.store.as_ref(), key).await?;
    let adapter = state.store.adapter(&caller.owner, &reference).await?;
    if adapter.owner == caller.owner { Ok(adapter) } else { Err(adapter_not_found(&Reference::Id(adapter.id))) }
}

async fn read_shares(state: &AppState, adapter: &Adapter) -> Result<AdapterShares> {
    let grantees = state.store.adapter_shares(&adapter.owner, adapter.id).await?;
    let everyone = grantees.iter().any(|grantee| grantee == EVERYONE);
    Ok(AdapterShares { owners: grantees.into_iter().filter(|grantee| grantee != EVERYONE).collect(), everyone })
}

fn to_grantees(shares: AdapterShares) -> Result<Vec<String>> {
    if shares.owners.len() > MAX_OWNERS {
        return Err(Error::invalid_field("/owners", format!("has more than {MAX_OWNERS} names: share with everyone")));
    }
    let owners = shares.owners.into_iter().enumerate();
    let parse = |(index, owner)| parse_owner(owner).map_err(|error| error.about_field(&format!("/owners/{index}")));
    let mut grantees = owners.map(parse).collect::<Result<Vec<_>>>()?;
    grantees.extend(shares.everyone.then(|| EVERYONE.to_string()));
    Ok(grantees)
}
