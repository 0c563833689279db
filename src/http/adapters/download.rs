//! Download of an adapter as a zip in PEFT's or AdapterHub's format.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::store::Adapter;
use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use espalier_core::artifact::{self, BaseSummary};
use espalier_core::error::{Context, Result};
use serde::Deserialize;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};

/// Number of version digits in the file name.
const VERSION_DIGITS: usize = 12;

/// File format of a download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AdapterFormat)]
pub enum ExportFormat {
    /// PEFT's files and `espalier.json`.
    #[default]
    Peft,
    /// AdapterHub's files; for bottleneck adapters with a head on the first token.
    Adapterhub,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DownloadQuery {
    /// File format of the zip. Default `peft`.
    #[param(inline, value_type = Option<ExportFormat>)]
    pub format: ExportFormat,
}

/// Writes the zip to an unlinked temporary file and streams it.
///
/// # Errors
/// `Conflict` (`adapter_damaged`) if the folder's content does not match its version; `Invalid` (`unsupported_format`) if the
/// format cannot express the adapter.
pub async fn download(state: &AppState, adapter: Adapter, format: ExportFormat) -> Result<Response> {
    let name = adapter.name.unwrap_or_else(|| adapter.id.to_string());
    let short_version: String = adapter.description.version.chars().take(VERSION_DIGITS).collect();
    let disposition = format!("attachment; filename=\"{name}-{short_version}.zip\"");
    let description = adapter.description;
    let (adapters, temporary, base) =
        (state.blobs.adapters_dir(&description.version).await?, state.data_dir.temp_dir(), Arc::clone(&state.base));
    let archive = run_blocking("writing a zip", move || {
        let mut zip = tempfile::tempfile_in(temporary).context("creating a temporary file for a download")?;
        let (version, provenance) = (&description.version, &description.provenance);
        match format {
            ExportFormat::Peft => {
                artifact::zip::write_peft_zip(&adapters.join(version), version, provenance, &mut zip)?;
            }
            ExportFormat::Adapterhub => {
                artifact::zip::write_adapterhub_zip(
                    &adapters,
                    version,
                    &BaseSummary::from_base(&base),
                    &name,
                    provenance,
                    &mut zip,
                )?;
            }
        }
        let bytes = zip.seek(SeekFrom::End(0)).context("measuring a zip")?;
        zip.rewind().context("reading a zip")?;
        Ok((zip, bytes))
    });
    let (zip, bytes) = archive.await?;
    let headers = [
        (CONTENT_TYPE, "application/zip".to_string()),
        (CONTENT_LENGTH, bytes.to_string()),
        (CONTENT_DISPOSITION, disposition),
    ];
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(zip), 64 * 1024);
    Ok((headers, Body::from_stream(stream)).into_response())
}
