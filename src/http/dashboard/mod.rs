//! `GET /`: the dashboard, a web page that calls this API. Its files are static and need no key; the calls that it makes do.

mod assets;

use super::error::{ApiError, ApiResult};
use super::extract::PathParam;
use super::openapi::NotFound;
use super::state::AppState;
use assets::Asset;
use axum::body::Bytes;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use espalier_core::error::Error;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The page runs only scripts of this server, none of them inline, and calls no other server. Strings cannot become HTML: Trusted
/// Types are required and no policy is allowed.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_dashboard)).routes(routes!(get_dashboard_file))
}

/// Dashboard
///
/// Web page that starts and watches jobs, compares adapters and tries them. It loads nothing from other servers.
#[utoipa::path(
    get, path = "/", operation_id = "get_dashboard", tag = "operations", security(()),
    responses((status = 200, description = "HTML page.", body = String, content_type = "text/html",
        example = "<!doctype html>"), (status = 304, description = "The browser has this version.")),
)]
async fn get_dashboard(headers: HeaderMap) -> ApiResult<Response> {
    let asset = assets::find("index.html").ok_or_else(|| file_not_found("index.html"))?;
    Ok(asset_response(asset, &headers))
}

/// File of the dashboard
#[utoipa::path(
    get, path = "/dashboard/{file}", operation_id = "get_dashboard_file", tag = "operations", security(()),
    params(("file" = String, Path, description = "File name.", example = "app.js")),
    responses((status = 200, description = "File content.", body = String, content_type = "text/javascript"),
        (status = 304, description = "The browser has this version."), NotFound),
)]
async fn get_dashboard_file(PathParam(name): PathParam, headers: HeaderMap) -> ApiResult<Response> {
    let asset = assets::find(&name).ok_or_else(|| file_not_found(&name))?;
    Ok(asset_response(asset, &headers))
}

fn file_not_found(name: &str) -> ApiError {
    Error::not_found("file_not_found", format!("the dashboard has no file \"{name}\": open /")).into()
}

fn asset_response(asset: &'static Asset, headers: &HeaderMap) -> Response {
    // Browsers ask again each time, so that a new version of the server is seen at once.
    let common: [(HeaderName, &str); 6] = [
        (CACHE_CONTROL, "no-cache"),
        (ETAG, &asset.etag),
        (VARY, "accept-encoding"),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    if names_token(headers, &IF_NONE_MATCH, &asset.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let accepts_gzip = names_token(headers, &ACCEPT_ENCODING, "gzip");
    let body = if accepts_gzip { asset.compressed.clone() } else { Bytes::from_static(asset.content) };
    let mut response = (common, [(CONTENT_TYPE, asset.content_type)], body).into_response();
    if accepts_gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Returns whether a list in a header has this token, without a weight or with one above 0.
fn names_token(headers: &HeaderMap, header: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().trim_start_matches("W/") == token && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_a_header_may_have_a_weight() {
        let names = |value: &str| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())]);
            names_token(&headers, &ACCEPT_ENCODING, "gzip")
        };
        assert!(["gzip", "br, gzip", "gzip;q=0.5, br", "deflate,gzip ; q=1"].into_iter().all(names));
        assert!(!["", "br", "gzip;q=0", "xgzip", "identity;q=1, gzip; q=0.0"].into_iter().any(names));
    }
}
