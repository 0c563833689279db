//! Parses `multipart/form-data`: one file part beside one JSON part or text parts, in any order.

use super::body_memory::BodyReservation;
use super::body_timeouts::BodyTimeouts;
use super::error::{ApiError, ApiResult};
use super::extract::{self, ReceivedBody};
use super::state::AppState;
use super::upload::{self, FileMetadata, Upload};
use crate::serving::Owner;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use espalier_core::error::Error;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Most text parts of a form, and the size of each.
const MAX_TEXT_PARTS: usize = 16;
const MAX_TEXT_BYTES: usize = 4096;

/// Part names, limits and temporary folder of a form.
pub struct FormSpec {
    pub json_part: &'static str,
    pub file_part: &'static str,
    pub max_json_bytes: usize,
    pub max_file_bytes: u64,
    pub timeouts: BodyTimeouts,
    pub temp_dir: PathBuf,
}

impl FormSpec {
    /// Form with the limits of the server's settings; starts the timeouts.
    pub fn new(state: &AppState, json_part: &'static str, file_part: &'static str, max_file_bytes: u64) -> Self {
        Self {
            json_part,
            file_part,
            max_json_bytes: state.settings.max_json_bytes,
            max_file_bytes,
            timeouts: BodyTimeouts::start(&state.settings),
            temp_dir: state.data_dir.temp_dir(),
        }
    }

    fn max_form_bytes(&self) -> u64 {
        self.max_file_bytes.saturating_add(self.max_json_bytes as u64).saturating_add(1 << 16)
    }
}

/// File and text parts of a received form.
pub struct TextForm {
    /// By name.
    pub texts: BTreeMap<String, String>,
    pub file: Option<Upload>,
}

/// Parts of a received form.
pub struct MultipartForm<T> {
    pub json: Option<T>,
    pub file: Option<Upload>,
}

/// Reads a form; the file is written to the temporary folder.
pub async fn read_form<T: DeserializeOwned + Send + 'static>(
    request: Request,
    mut spec: FormSpec,
) -> ApiResult<MultipartForm<T>> {
    let reservation = request.extensions().get::<BodyReservation>().cloned();
    let owner = extract::sender(request.extensions());
    let mut parts = open_form(request, &spec).await?;
    let mut form = MultipartForm { json: None, file: None };
    loop {
        let Some(field) = next_part(&mut parts, &mut spec).await? else { return Ok(form) };
        match field.name() {
            Some(name) if name == spec.json_part && form.json.is_none() => {
                form.json = Some(read_json_part(field, &mut spec, &owner, reservation.as_ref()).await?);
            }
            Some(name) if name == spec.file_part && form.file.is_none() => {
                form.file = Some(read_file_part(field, &mut spec).await?);
            }
            name => return Err(unexpected_part(name.unwrap_or_default(), &spec)),
        }
    }
}

/// Reads a form whose other parts are texts; the file is written to the temporary folder.
pub async fn read_text_form(request: Request, mut spec: FormSpec) -> ApiResult<TextForm> {
    let mut parts = open_form(request, &spec).await?;
    let mut form = TextForm { texts: BTreeMap::new(), file: None };
    loop {
        let Some(field) = next_part(&mut parts, &mut spec).await? else { return Ok(form) };
        match field.name().map(str::to_string) {
            Some(name) if name == spec.file_part && form.file.is_none() => {
                form.file = Some(read_file_part(field, &mut spec).await?);
            }
            Some(name)
                if name != spec.file_part && !form.texts.contains_key(&name) && form.texts.len() < MAX_TEXT_PARTS =>
            {
                let chunks = std::pin::pin!(
                    field.map(|chunk| chunk.map_err(|error| multipart_error(&error, MAX_TEXT_BYTES as u64)))
                );
                let subject = format!("the part \"{name}\"");
                let text =
                    extract::collect_chunks(chunks, Vec::new(), &subject, MAX_TEXT_BYTES, &mut spec.timeouts, None)
                        .await?;
                form.texts.insert(name, String::from_utf8_lossy(&text).into_owned());
            }
            name => {
                let detail = format!("the part \"{}\" is repeated: send each part once", name.unwrap_or_default());
                return Err(Error::invalid("unexpected_part", detail).into());
            }
        }
    }
}

async fn open_form(request: Request, spec: &FormSpec) -> ApiResult<Multipart> {
    extract::check_content_length(request.headers(), "the form", spec.max_form_bytes())?;
    Multipart::from_request(request, &()).await.map_err(|rejection| {
        ApiError::bad_request("malformed_form", format!("{}: send it again", rejection.body_text()))
    })
}

async fn next_part<'a>(parts: &'a mut Multipart, spec: &mut FormSpec) -> ApiResult<Option<Field<'a>>> {
    let limit = spec.max_form_bytes();
    spec.timeouts.wait_for(parts.next_field()).await?.map_err(|error| multipart_error(&error, limit))
}

async fn read_json_part<T: DeserializeOwned + Send + 'static>(
    field: Field<'_>,
    spec: &mut FormSpec,
    owner: &Owner,
    reservation: Option<&BodyReservation>,
) -> ApiResult<T> {
    let limit = spec.max_json_bytes;
    let chunks = std::pin::pin!(field.map(|chunk| chunk.map_err(|error| multipart_error(&error, limit as u64))));
    let subject = format!("the part \"{}\"", spec.json_part);
    let bytes = extract::collect_chunks(chunks, Vec::new(), &subject, limit, &mut spec.timeouts, reservation).await?;
    extract::parse_json(ReceivedBody { owner: Owner::clone(owner), bytes }).await
}

async fn read_file_part(field: Field<'_>, spec: &mut FormSpec) -> ApiResult<Upload> {
    let metadata = FileMetadata::new(field.file_name(), field.content_type());
    let limit = spec.max_file_bytes;
    let chunks = std::pin::pin!(field.map(|chunk| chunk.map_err(|error| multipart_error(&error, limit))));
    upload::stream_to_disk(chunks, metadata, limit, &mut spec.timeouts, &spec.temp_dir).await
}

fn multipart_error(error: &MultipartError, limit: u64) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::payload_too_large("the form", limit),
        _ => ApiError::bad_request(
            "malformed_form",
            format!("the form cannot be read: {}; send it again", error.body_text()),
        ),
    }
}

fn unexpected_part(name: &str, spec: &FormSpec) -> ApiError {
    let (json, file) = (spec.json_part, spec.file_part);
    let detail = format!(
        "the part \"{name}\" is unknown or repeated: send \"{file}\" (a file) and \"{json}\" (JSON), each once"
    );
    Error::invalid("unexpected_part", detail).into()
}

#[cfg(test)]
mod tests;
