//! vLLM's `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`: they import an adapter from a path below `--adapter-import-folder`, and delete it.

use super::field_rules::Rule;
use super::fields::{OpenAiJson, OpenAiRequest};
use crate::http::adapters::import::{self, Origin};
use crate::http::adapters::source;
use crate::http::auth::Caller;
use crate::http::error::ApiResult;
use crate::http::openapi::{BadRequest, Conflict, NotFound, ServiceUnavailable};
use crate::http::resource_name::Name;
use crate::http::spawn::{run_blocking, spawn_detached};
use crate::http::state::AppState;
use crate::store::{Adapter, Reference};
use axum::response::{IntoResponse, Response};
use espalier_core::artifact::ImportRequest;
use espalier_core::error::{Error, FieldError, Problem, Result};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Adapter to load.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"lora_name": "sql-lora", "lora_path": "/adapters/sql-lora", "load_inplace": false}))]
pub struct LoadLoraRequest {
    /// Name of the adapter, which is the value of `model` in requests.
    pub lora_name: Option<String>,
    /// Folder, zip or `.tar.gz` of the adapter: a path below the server's `--adapter-import-folder`, absolute or relative to it.
    pub lora_path: Option<String>,
    /// Loads a new version of a name that is loaded already.
    #[serde(default)]
    pub load_inplace: bool,
    /// Base model that the adapter was trained on; overrides the adapter's configuration.
    pub base_model_name: Option<String>,
}

impl OpenAiRequest for LoadLoraRequest {
    const FIELDS: &'static [&'static str] = &["lora_name", "lora_path", "load_inplace", "base_model_name"];
    const INTEGERS: &'static [&'static str] = &[];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = &[];
}

/// Adapter to unload.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"lora_name": "sql-lora"}))]
pub struct UnloadLoraRequest {
    /// Name of the adapter.
    pub lora_name: Option<String>,
}

impl OpenAiRequest for UnloadLoraRequest {
    const FIELDS: &'static [&'static str] = &["lora_name"];
    const INTEGERS: &'static [&'static str] = &[];
    const NEGATIVE_DEFAULTS: &'static [&'static str] = &[];
    // vLLM's number of the adapter within its process.
    const OTHER_FIELDS: &'static [(&'static str, Rule)] = &[("lora_int_id", Rule::NoEffect)];
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(load_lora_adapter)).routes(routes!(unload_lora_adapter))
}

/// Load a LoRA adapter
///
/// As in vLLM: imports an adapter of any method from the operator's folder; its name is the value of `model` at once.
#[utoipa::path(
    post, path = "/v1/load_lora_adapter", operation_id = "load_lora_adapter", tag = "openai", request_body = LoadLoraRequest,
    responses(
        (status = 200, description = "The adapter is loaded.", body = String, content_type = "text/plain",
            example = "Success: LoRA adapter 'sql-lora' added successfully."),
        BadRequest, NotFound, ServiceUnavailable,
    ),
)]
async fn load_lora_adapter(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<LoadLoraRequest>,
) -> ApiResult<Response> {
    let (Some(name), Some(path)) = (non_empty(request.lora_name), non_empty(request.lora_path)) else {
        return Err(bad_request("/lora_path", "Both 'lora_name' and 'lora_path' must be provided.").into());
    };
    let name = checked_name(&state, name)?;
    let loaded = || format!("Success: LoRA adapter '{name}' added successfully.").into_response();
    if import::find_created(&state, &caller).await?.is_some() {
        return Ok(ignored.add_to(loaded()));
    }
    if !request.load_inplace && find_by_name(&state, &caller.owner, &name).await?.is_some() {
        let message = format!(
            "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set \
             'load_inplace' to True."
        );
        return Err(bad_request("/lora_name", message).into());
    }
    let (imports, path) = (Arc::clone(&state.adapter_imports), PathBuf::from(path));
    let find = move || source::locate_below(imports.folder.as_deref(), &path);
    let found = run_blocking("finding an adapter", find).await?;
    let import = ImportRequest { base: request.base_model_name, ..ImportRequest::default() };
    import::import_source(&state, &caller, found, Some(name.clone()), import, Origin::LoadLoraAdapter).await?;
    Ok(ignored.add_to(loaded()))
}

/// Unload a LoRA adapter
///
/// Deletes the versions of the name that `/v1/load_lora_adapter` has loaded; requests in flight are answered. Adapters that were
/// trained or imported otherwise are refused: `DELETE /adapters/{id}` deletes them.
#[utoipa::path(
    post, path = "/v1/unload_lora_adapter", operation_id = "unload_lora_adapter", tag = "openai", request_body = UnloadLoraRequest,
    responses(
        (status = 200, description = "The adapter is unloaded.", body = String, content_type = "text/plain",
            example = "Success: LoRA adapter 'sql-lora' removed successfully."),
        BadRequest, NotFound, Conflict, ServiceUnavailable,
    ),
)]
async fn unload_lora_adapter(
    state: AppState,
    caller: Caller,
    OpenAiJson(request, ignored): OpenAiJson<UnloadLoraRequest>,
) -> ApiResult<Response> {
    let Some(name) = non_empty(request.lora_name) else {
        return Err(bad_request("/lora_name", "'lora_name' needs to be provided to unload a LoRA adapter.").into());
    };
    caller.check_adapter(state.store.as_ref(), &Reference::Name(name.clone())).await?;
    let removal = async move { unload(&state, &caller.owner, &name).await.map(|()| name) };
    let name = spawn_detached("unloading an adapter", removal).await?;
    Ok(ignored.add_to(format!("Success: LoRA adapter '{name}' removed successfully.").into_response()))
}

/// Deletes the loaded versions of a name, newest first, up to one of another origin.
async fn unload(state: &AppState, owner: &str, name: &str) -> Result<()> {
    let Some(newest) = find_by_name(state, owner, name).await? else {
        let message = format!("The lora adapter '{name}' cannot be found.");
        return Err(Error::not_found("model_not_found", message));
    };
    if !is_loaded(&newest) {
        let message = format!(
            "The lora adapter '{name}' was not loaded by /v1/load_lora_adapter: delete it by DELETE /adapters/{}",
            newest.id
        );
        return Err(bad_request("/lora_name", message));
    }
    let mut next = Some(newest);
    while let Some(adapter) = next.filter(is_loaded) {
        import::delete_adapter(state, owner, &Reference::Id(adapter.id)).await?;
        next = find_by_name(state, owner, name).await?;
    }
    Ok(())
}

fn is_loaded(adapter: &Adapter) -> bool {
    adapter.description.provenance["origin"] == Origin::LoadLoraAdapter.as_str()
}

async fn find_by_name(state: &AppState, owner: &str, name: &str) -> Result<Option<Adapter>> {
    match state.store.adapter(owner, &Reference::Name(name.to_string())).await {
        Ok(adapter) => Ok(Some(adapter)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// # Errors
/// `Invalid` for text that is no name, and for the name of the base model.
fn checked_name(state: &AppState, name: String) -> Result<String> {
    if name == state.base.info().name {
        return Err(bad_request("/lora_name", format!("'{name}' is the name of the base model.")));
    }
    Name::try_from(name).map(Name::into_string).map_err(|message| bad_request("/lora_name", message))
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Error in vLLM's words, without the name of the field before them.
fn bad_request(pointer: &str, message: impl Into<String>) -> Error {
    let message = message.into();
    let field = FieldError::at_pointer(pointer, message.clone());
    Error::Invalid(Problem::new("invalid_body", message).with_errors(vec![field]))
}
