//! An adapter's folder as a zip on its way out.
//!
//! Knows nothing of what is in it.

use crate::artifact;
use crate::error::{Context, Result};
use crate::http::state::State;
use crate::http::work::aside;
use crate::store::Adapter;
use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use std::io::{Seek, SeekFrom};
use tokio_util::io::ReaderStream;

/// Digits of the version in the file's name.
const SHORT: usize = 12;

/// Writes the zip into a file without a name, so that nothing can be left behind, and streams it.
///
/// # Errors
/// `Conflict` (`adapter_damaged`) where the folder is not what its version says.
pub async fn download(state: &State, adapter: Adapter) -> Result<Response> {
    let name = adapter.name.unwrap_or_else(|| adapter.id.to_string());
    let short: String = adapter.description.version.chars().take(SHORT).collect();
    let disposition = format!("attachment; filename=\"{name}-{short}.zip\"");
    let (adapters, temporary) = (state.folder.adapters(), state.folder.temporary());
    let description = adapter.description;
    let written = aside("writing a zip", move || {
        let mut zip = tempfile::tempfile_in(temporary).context("making a temporary file for a download")?;
        let folder = adapters.join(&description.version);
        artifact::zip::export(&folder, &description.version, &description.provenance, &mut zip)?;
        let bytes = zip.seek(SeekFrom::End(0)).context("measuring a zip")?;
        zip.rewind().context("reading a zip")?;
        Ok((zip, bytes))
    });
    let (zip, bytes) = written.await?;
    let headers = [
        (CONTENT_TYPE, "application/zip".to_string()),
        (CONTENT_LENGTH, bytes.to_string()),
        (CONTENT_DISPOSITION, disposition),
    ];
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(zip), 64 * 1024);
    Ok((headers, Body::from_stream(stream)).into_response())
}
