//! Sources of an adapter other than an upload: a repository on the Hugging Face hub, or a path below the operator's folder.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::telemetry::{self, TraceContext};
use espalier_core::artifact::{self, ImportSource};
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::hub;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// `Retry-After` of a hub that does not answer.
const HUB_RETRY_AFTER: Duration = Duration::from_secs(30);

/// `hub:owner/name@revision` or `path:relative/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUri {
    Hub(String),
    Path(PathBuf),
}

impl SourceUri {
    /// # Errors
    /// `Invalid` (`invalid_source`).
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("hub", id)) => Ok(Self::Hub(id.to_string())),
            Some(("path", path)) => Ok(Self::Path(PathBuf::from(path))),
            _ => {
                let message = "is neither hub:owner/name@revision nor path:folder/adapter";
                Err(Error::invalid_field("/source", message))
            }
        }
    }
}

/// Finds the files of a source; those on the hub are downloaded.
///
/// # Errors
/// `Invalid` with the reason; `Busy` (`hub_unavailable`) if the hub does not answer.
pub async fn locate(state: &AppState, source: SourceUri) -> Result<ImportSource> {
    let (imports, limits) = (Arc::clone(&state.adapter_imports), state.artifact_settings);
    match source {
        SourceUri::Path(path) => {
            run_blocking("finding an adapter", move || locate_below(imports.folder.as_deref(), &path)).await
        }
        SourceUri::Hub(id) => {
            let permit = Arc::clone(&state.concurrency.downloads).acquire_owned().await;
            let permit = permit.context("waiting to download an adapter")?;
            let span = tracing::debug_span!("download adapter");
            let trace = telemetry::sampled_context(&span);
            let headers = trace.map(TraceContext::into_headers).unwrap_or_default();
            let hub = hub::Settings { headers, ..imports.hub.clone() };
            let fetch = move || {
                let _permit = permit;
                artifact::fetch_from_hub(&id, &hub, &limits)
            };
            run_blocking("downloading an adapter", fetch).instrument(span).await.map_err(hub_unavailable)
        }
    }
}

fn hub_unavailable(error: Error) -> Error {
    let Error::Internal(cause) = error else { return error };
    tracing::warn!(error = format!("{cause:#}"), "an adapter could not be downloaded");
    let detail = "the adapter could not be downloaded from the hub: try again later, or upload its files; the server's log has \
                  the reason";
    Error::busy("hub_unavailable", detail, HUB_RETRY_AFTER)
}

/// Finds an archive or folder below the operator's folder. An absolute path has to lie below it.
///
/// # Errors
/// `Invalid` (`imports_disabled`) without a folder; `NotFound`
/// (`adapter_not_found`) also for a path that leaves the folder.
pub fn locate_below(folder: Option<&Path>, path: &Path) -> Result<ImportSource> {
    let folder = folder.ok_or_else(|| {
        let detail = "paths are not read: the operator has to name their folder by --adapter-import-folder \
                      (ESPALIER_ADAPTER_IMPORT_FOLDER); otherwise upload the adapter by POST /adapters";
        Error::invalid("imports_disabled", detail)
    })?;
    let root = folder.canonicalize().context("finding the folder of --adapter-import-folder")?;
    let not_found = || {
        let shown = path.display();
        let detail = format!("No adapter found for {shown}: give a path below the folder of --adapter-import-folder");
        Error::not_found("adapter_not_found", detail)
    };
    // An absolute path replaces the root.
    let found = root.join(path).canonicalize().map_err(|_| not_found())?;
    match found.starts_with(&root) {
        true if found.is_dir() => Ok(ImportSource::Folder { path: found, root }),
        true => Ok(ImportSource::Archive(found)),
        // Does not tell whether there is a file.
        false => Err(not_found()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn sources_have_a_scheme() {
        assert_eq!(SourceUri::parse("hub:a/b@v1").unwrap(), SourceUri::Hub("a/b@v1".to_string()));
        assert_eq!(SourceUri::parse("path:a/b").unwrap(), SourceUri::Path(PathBuf::from("a/b")));
        for text in ["", "a/b", "file:///a", "https://hub/a", "HUB:a/b"] {
            assert_eq!(SourceUri::parse(text).unwrap_err().code(), "invalid_body", "{text}");
        }
    }

    #[test]
    fn paths_stay_below_the_folder() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("imports");
        fs::create_dir_all(root.join("one")).unwrap();
        fs::create_dir(home.path().join("other")).unwrap();
        fs::write(root.join("two.zip"), "zip").unwrap();
        fs::write(home.path().join("secret"), "secret").unwrap();
        symlink(home.path().join("secret"), root.join("link.zip")).unwrap();
        symlink("one", root.join("alias")).unwrap();
        let locate = |path: &Path| locate_below(Some(&root), path);
        for path in ["one", "one/", "./one", "alias", "one/../one"] {
            assert!(matches!(locate(Path::new(path)), Ok(ImportSource::Folder { .. })), "{path}");
        }
        assert!(matches!(locate(&root.join("one")), Ok(ImportSource::Folder { .. })));
        assert!(matches!(locate(Path::new("two.zip")), Ok(ImportSource::Archive(_))));
        let outside = home.path().join("other");
        for path in ["../other", "../secret", "link.zip", "nothing", "/etc/passwd", "\0"] {
            assert_eq!(locate(Path::new(path)).unwrap_err().code(), "adapter_not_found", "{path}");
        }
        assert_eq!(locate(&outside).unwrap_err().code(), "adapter_not_found");
        assert_eq!(locate_below(None, Path::new("one")).unwrap_err().code(), "imports_disabled");
    }
}
