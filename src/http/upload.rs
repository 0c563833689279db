//! Uploaded files: written to the data folder's temporary directory, hashed on the way, and deleted on drop.

use super::body_timeouts::BodyTimeouts;
use super::error::{ApiError, ApiResult};
use super::extract;
use super::state::AppState;
use axum::body::Bytes;
use axum::extract::Request;
use espalier_core::error::{Context, Result};
use futures_util::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;
use tempfile::{NamedTempFile, TempPath};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use utoipa::ToSchema;

/// Maximum length of a stored file name, in characters.
const MAX_FILE_NAME_CHARS: usize = 200;

/// Complete temporary file. Dropping it deletes the file, so that a cancelled or rejected upload leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    path: TempPath,
    /// Hexadecimal SHA-256 of the content.
    pub hash: String,
    pub bytes: u64,
    pub metadata: FileMetadata,
}

/// File content in the OpenAPI document.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct Binary(pub Vec<u8>);

/// File name and content type sent by the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileMetadata {
    pub file_name: Option<String>,
    pub content_type: Option<String>,
}

impl FileMetadata {
    pub fn new(file_name: Option<&str>, content_type: Option<&str>) -> Self {
        Self { file_name: file_name.and_then(sanitize_file_name), content_type: content_type.map(str::to_string) }
    }
}

impl Upload {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns the last component of a path, without control characters.
fn sanitize_file_name(name: &str) -> Option<String> {
    let base_name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let cleaned: String =
        base_name.chars().filter(|character| !character.is_control()).take(MAX_FILE_NAME_CHARS).collect();
    let trimmed = cleaned.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_string())
}

/// Writes a request's whole body to a temporary file of at most `limit` bytes.
pub async fn receive_body(
    state: &AppState,
    request: Request,
    subject: &str,
    metadata: FileMetadata,
    limit: u64,
) -> ApiResult<Upload> {
    extract::check_content_length(request.headers(), subject, limit)?;
    let (chunks, mut timeouts) = (extract::body_chunks(request.into_body()), BodyTimeouts::start(&state.settings));
    stream_to_disk(chunks, metadata, limit, &mut timeouts, &state.data_dir.temp_dir()).await
}

/// Writes the chunks to a temporary file of at most `limit` bytes.
pub async fn stream_to_disk(
    mut chunks: impl Stream<Item = ApiResult<Bytes>> + Unpin,
    metadata: FileMetadata,
    limit: u64,
    timeouts: &mut BodyTimeouts,
    temp_dir: &Path,
) -> ApiResult<Upload> {
    let (file, path) = create_temp_file(temp_dir)?.into_parts();
    let mut file = File::from_std(file);
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    while let Some(chunk) = timeouts.next_chunk(chunks.next()).await? {
        bytes += chunk.len() as u64;
        if bytes > limit {
            return Err(ApiError::payload_too_large("the file", limit));
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await.context("writing an uploaded file")?;
    }
    file.flush().await.context("writing an uploaded file")?;
    Ok(Upload { path, hash: hex::encode(hasher.finalize()), bytes, metadata })
}

/// Writes records in memory to a temporary file, one per line.
///
/// # Errors
/// `Internal` if the file cannot be written.
pub fn write_jsonl(records: &[serde_json::Value], temp_dir: &Path) -> Result<Upload> {
    let (file, path) = create_temp_file(temp_dir)?.into_parts();
    let mut file = std::io::BufWriter::new(file);
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    for line in records {
        let line = format!("{line}\n");
        hasher.update(line.as_bytes());
        bytes += line.len() as u64;
        file.write_all(line.as_bytes()).context("writing inline examples")?;
    }
    file.flush().context("writing inline examples")?;
    Ok(Upload { path, hash: hex::encode(hasher.finalize()), bytes, metadata: FileMetadata::default() })
}

fn create_temp_file(temp_dir: &Path) -> Result<NamedTempFile> {
    NamedTempFile::new_in(temp_dir).context("creating a temporary file for an upload")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use futures_util::stream;
    use std::time::Duration;

    fn timeouts(milliseconds: u64) -> BodyTimeouts {
        BodyTimeouts::new(Duration::from_millis(milliseconds), 1, Duration::from_secs(60))
    }

    fn file_count(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    async fn upload(parts: &[&'static str], limit: u64, folder: &Path) -> ApiResult<Upload> {
        let chunks = stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))));
        stream_to_disk(chunks, FileMetadata::default(), limit, &mut timeouts(1000), folder).await
    }

    #[tokio::test]
    async fn an_upload_is_hashed_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let upload = upload(&["ab", "c"], 3, folder.path()).await.unwrap();
        assert_eq!(upload.hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(std::fs::read_to_string(upload.path()).unwrap(), "abc");
        assert_eq!(upload.bytes, 3);
    }

    #[tokio::test]
    async fn dropped_upload_deletes_its_file() {
        let folder = tempfile::tempdir().unwrap();
        drop(upload(&["abc"], 3, folder.path()).await.unwrap());
        assert_eq!(file_count(folder.path()), 0);
    }

    #[tokio::test]
    async fn file_beyond_the_limit_is_rejected_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let error = upload(&["ab", "cd"], 3, folder.path()).await.unwrap_err();
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(file_count(folder.path()), 0);
    }

    #[tokio::test]
    async fn stalled_upload_times_out_and_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let chunks = stream::iter([Ok(Bytes::from_static(b"ab"))]).chain(stream::pending());
        let error =
            stream_to_disk(chunks, FileMetadata::default(), 3, &mut timeouts(1), folder.path()).await.unwrap_err();
        assert_eq!(error.status, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(file_count(folder.path()), 0);
    }

    #[tokio::test]
    async fn cancelled_upload_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let chunks = stream::iter([Ok(Bytes::from_static(b"ab"))]).chain(stream::pending());
        let mut timeouts = timeouts(60_000);
        let mut transfer = Box::pin(stream_to_disk(chunks, FileMetadata::default(), 3, &mut timeouts, folder.path()));
        assert!(futures_util::poll!(&mut transfer).is_pending());
        assert_eq!(file_count(folder.path()), 1);
        drop(transfer);
        assert_eq!(file_count(folder.path()), 0);
    }

    #[test]
    fn inline_examples_become_one_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let upload = write_jsonl(&[serde_json::json!({"text": "a\nb"}), serde_json::json!(3)], folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(upload.path()).unwrap(), "{\"text\":\"a\\nb\"}\n3\n");
    }

    #[test]
    fn file_name_is_the_last_path_component() {
        for (sent, stored) in
            [("a.csv", Some("a.csv")), ("../x/b.csv", Some("b.csv")), ("C:\\c.csv", Some("c.csv")), ("\n", None)]
        {
            assert_eq!(FileMetadata::new(Some(sent), None).file_name.as_deref(), stored);
        }
    }
}
