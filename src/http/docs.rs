//! `GET /openapi.yaml` and `/docs`: the OpenAPI document, and Swagger UI served from the binary.

use super::error::{ApiError, ApiResult};
use super::extract::PathParam;
use super::openapi::NotFound;
use super::state::AppState;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect, Response};
use espalier_core::error::{Context, Error};
use std::sync::{Arc, LazyLock};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::Config;

/// The document's URL is relative to the page, so that both work behind a proxy with a path prefix.
static SWAGGER_CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // By default the page sends the document to a validator on the internet.
    Arc::new(Config::from("../openapi.yaml").validator_url("none").display_request_duration(true))
});

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_openapi))
        .routes(routes!(get_docs))
        .routes(routes!(get_docs_page))
        .routes(routes!(get_docs_file))
}

/// This document
#[utoipa::path(
    get, path = "/openapi.yaml", operation_id = "get_openapi", tag = "operations", security(()),
    responses((status = 200, description = "OpenAPI document of this server.", body = String, content_type = "application/yaml",
        example = "openapi: 3.1.0\n")),
)]
async fn get_openapi(state: AppState) -> Response {
    ([(CONTENT_TYPE, "application/yaml")], state.openapi_yaml.to_string()).into_response()
}

/// Redirect to the API documentation
#[utoipa::path(
    get, path = "/docs", operation_id = "get_docs", tag = "operations", security(()),
    responses((status = 308, description = "Redirect to `/docs/`, where relative links to assets work.")),
)]
async fn get_docs() -> Redirect {
    Redirect::permanent("docs/")
}

/// API documentation
///
/// Swagger UI with this document. It loads nothing from other servers.
#[utoipa::path(
    get, path = "/docs/", operation_id = "get_docs_page", tag = "operations", security(()),
    responses((status = 200, description = "HTML page.", body = String, content_type = "text/html",
        example = "<!DOCTYPE html>")),
)]
async fn get_docs_page() -> ApiResult<Response> {
    swagger_asset("index.html")
}

/// Asset of the API documentation
#[utoipa::path(
    get, path = "/docs/{file}", operation_id = "get_docs_file", tag = "operations", security(()),
    params(("file" = String, Path, description = "File name.", example = "swagger-ui.css")),
    responses((status = 200, description = "File content.", body = String, content_type = "text/css"), NotFound),
)]
async fn get_docs_file(PathParam(name): PathParam) -> ApiResult<Response> {
    swagger_asset(&name)
}

fn swagger_asset(name: &str) -> ApiResult<Response> {
    let asset = utoipa_swagger_ui::serve(name, Arc::clone(&SWAGGER_CONFIG)).map_err(Error::internal)?;
    let Some(file) = asset else { return Err(asset_not_found(name)) };
    let mut response = file.bytes.into_owned().into_response();
    let content_type = file.content_type.parse().context("reading a content type")?;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    if file.gzpipped {
        response.headers_mut().insert(CONTENT_ENCODING, axum::http::HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn asset_not_found(name: &str) -> ApiError {
    Error::not_found("file_not_found", format!("the page has no file \"{name}\": open /docs/")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    async fn asset_text(name: &str) -> String {
        let response = swagger_asset(name).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn swagger_ui_loads_no_external_assets() {
        let page = asset_text("index.html").await;
        assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
        let assets = page.split(['"', '\'']).filter_map(|part| part.strip_prefix("./"));
        let assets: Vec<&str> = assets.collect();
        assert!(assets.contains(&"swagger-initializer.js") && assets.contains(&"swagger-ui.css"), "{assets:?}");
        for name in assets {
            assert!(swagger_asset(name).is_ok(), "{name} is missing");
        }
    }

    #[tokio::test]
    async fn swagger_ui_loads_this_servers_document_without_validator() {
        let settings = asset_text("swagger-initializer.js").await;
        assert!(settings.contains("\"url\": \"../openapi.yaml\""), "{settings}");
        assert!(settings.contains("\"validatorUrl\": \"none\""), "{settings}");
    }

    #[test]
    fn unknown_swagger_asset_is_404() {
        assert_eq!(swagger_asset("../Cargo.toml").unwrap_err().status, StatusCode::NOT_FOUND);
    }
}
