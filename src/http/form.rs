//! `multipart/form-data` with one JSON part and one file part, in any order.
//!
//! Knows the parts only by the names it is given.

use super::error::{Answer, Refusal};
use super::extract::{self, Pace};
use super::json;
use super::upload::{self, Origin, Upload};
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use espalier_core::error::Error;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::path::Path;

/// What a form is to hold, and how much of it.
pub struct Expect<'a> {
    pub json_part: &'static str,
    pub file_part: &'static str,
    pub max_json: usize,
    pub max_file: u64,
    pub pace: Pace,
    pub folder: &'a Path,
}

/// What came.
pub struct Form<T> {
    pub json: Option<T>,
    pub file: Option<Upload>,
}

pub async fn read<T: DeserializeOwned>(request: Request, expect: &Expect<'_>) -> Answer<Form<T>> {
    let whole = expect.max_file.saturating_add(expect.max_json as u64).saturating_add(1 << 16);
    extract::refuse_announced(request.headers(), "the form", whole)?;
    let mut parts = Multipart::from_request(request, &()).await.map_err(|rejection| {
        Refusal::unreadable("malformed_form", format!("{}: send it again", rejection.body_text()))
    })?;
    let mut form = Form { json: None, file: None };
    loop {
        let next = expect.pace.next(parts.next_field()).await?.map_err(|error| malformed(&error, whole))?;
        let Some(part) = next else { return Ok(form) };
        match part.name() {
            Some(name) if name == expect.json_part && form.json.is_none() => {
                form.json = Some(json_part(part, expect).await?);
            }
            Some(name) if name == expect.file_part && form.file.is_none() => {
                form.file = Some(file_part(part, expect).await?);
            }
            name => return Err(unexpected(name.unwrap_or_default(), expect)),
        }
    }
}

async fn json_part<T: DeserializeOwned>(part: Field<'_>, expect: &Expect<'_>) -> Answer<T> {
    let limit = expect.max_json;
    let pieces = std::pin::pin!(part.map(|piece| piece.map_err(|error| malformed(&error, limit as u64))));
    let body = extract::collect(pieces, &format!("the part \"{}\"", expect.json_part), limit, expect.pace).await?;
    json::parse(&body)
}

async fn file_part(part: Field<'_>, expect: &Expect<'_>) -> Answer<Upload> {
    let origin = Origin::new(part.file_name(), part.content_type());
    let limit = expect.max_file;
    let pieces = std::pin::pin!(part.map(|piece| piece.map_err(|error| malformed(&error, limit))));
    upload::receive(pieces, origin, limit, expect.pace, expect.folder).await
}

fn malformed(error: &MultipartError, limit: u64) -> Refusal {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large("the form", limit),
        _ => Refusal::unreadable(
            "malformed_form",
            format!("the form cannot be read: {}; send it again", error.body_text()),
        ),
    }
}

fn unexpected(name: &str, expect: &Expect<'_>) -> Refusal {
    let (json, file) = (expect.json_part, expect.file_part);
    let detail = format!(
        "the part \"{name}\" is unknown or repeated: send \"{file}\" (a file) and \"{json}\" (JSON), each once"
    );
    Error::invalid("unexpected_part", detail).into()
}

#[cfg(test)]
mod tests;
