//! Cross-origin requests of web pages (CORS), for the origins that `--cors-origins` names.

use super::idempotency_header::IDEMPOTENT_REPLAYED;
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use espalier_core::error::{Error, Result};
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser keeps the answer to a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Origins whose web pages may call the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    #[default]
    None,
    Any,
    /// Such as `https://app.example.com`.
    Origins(Vec<String>),
}

impl CorsOrigins {
    /// Parses origins; `*` allows every one.
    ///
    /// # Errors
    /// `Invalid` (`invalid_origin`) for text that is not the origin of a page.
    pub fn parse<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut parsed = Vec::new();
        for origin in origins {
            if origin == "*" {
                return Ok(Self::Any);
            }
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let is_origin = host.is_some_and(|host| {
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
            });
            if !is_origin {
                let detail = format!(
                    "\"{origin}\" is not the origin of a web page: --cors-origins takes origins such as https://app.example.com, without a \
                     path, separated by commas, or *"
                );
                return Err(Error::invalid("invalid_origin", detail));
            }
            parsed.push(origin.to_ascii_lowercase());
        }
        Ok(if parsed.is_empty() { Self::None } else { Self::Origins(parsed) })
    }

    /// Layer that answers preflight requests and adds the headers to every response; `None` without origins.
    pub fn to_layer(&self) -> Option<CorsLayer> {
        let origin = match self {
            Self::None => return None,
            Self::Any => AllowOrigin::any(),
            Self::Origins(origins) => {
                AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
            }
        };
        let exposed = [
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("x-ignored-fields"),
            HeaderName::from_static("openai-processing-ms"),
            IDEMPOTENT_REPLAYED,
            RETRY_AFTER,
            LOCATION,
        ];
        Some(
            CorsLayer::new()
                .allow_origin(origin)
                .allow_methods([Method::GET, Method::POST, Method::DELETE])
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(exposed)
                .max_age(PREFLIGHT_MAX_AGE),
        )
    }

    /// Named origins; none where every page may call, or no page.
    pub fn origins(&self) -> &[String] {
        match self {
            Self::Origins(origins) => origins,
            Self::None | Self::Any => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        assert_eq!(CorsOrigins::parse([]).unwrap(), CorsOrigins::None);
        assert_eq!(CorsOrigins::parse(["https://a.example", "*"]).unwrap(), CorsOrigins::Any);
        let listed = CorsOrigins::parse(["https://A.example", "http://localhost:3000"]).unwrap();
        assert_eq!(listed.origins(), ["https://a.example", "http://localhost:3000"]);
        for wrong in ["a.example", "https://", "https://a.example/", "ftp://a.example", "null"] {
            assert_eq!(CorsOrigins::parse([wrong]).unwrap_err().code(), "invalid_origin", "{wrong}");
        }
    }
}
