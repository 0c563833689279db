//! Files of the dashboard (`src/web`), embedded in the binary and compressed once.

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::sync::LazyLock;

/// File of the dashboard.
pub struct Asset {
    pub name: &'static str,
    pub content_type: &'static str,
    pub content: &'static [u8],
    /// Content compressed with gzip.
    pub compressed: Bytes,
    /// Value of the header `ETag`.
    pub etag: String,
}

macro_rules! embedded_files {
    ($($name:literal)*) => {
        [$(($name, include_bytes!(concat!("../../web/", $name)).as_slice())),*]
    };
}

const FILES: [(&str, &[u8]); 63] = embedded_files! {
    "access-audit.js"
    "access-key-form.js"
    "access-keys.js"
    "access-owners.js"
    "adapter-metrics.js"
    "adapter-names.js"
    "adapter-version.js"
    "api.js"
    "app.js"
    "calibration.js"
    "cards.js"
    "chart.js"
    "columns.js"
    "components.css"
    "confusion-matrix.js"
    "conversations.js"
    "credential.js"
    "data-picker.js"
    "dom.js"
    "examples.js"
    "explain.js"
    "feedback.js"
    "format.js"
    "icon.svg"
    "index.html"
    "job-configuration.js"
    "job-curves.js"
    "job-head.js"
    "job-request.js"
    "job-results.js"
    "job-row.js"
    "job-status.js"
    "job-summary.js"
    "limits.js"
    "metric-history.js"
    "new-key.js"
    "patch.js"
    "playground-generate.js"
    "playground-models.js"
    "playground-predict.js"
    "polling.js"
    "report.js"
    "router.js"
    "settings-form.js"
    "snippets.js"
    "sparkline.js"
    "theme.css"
    "theme.js"
    "uplot.LICENSE.txt"
    "uplot.css"
    "uplot.js"
    "view-access.js"
    "view-adapter.js"
    "view-adapters.js"
    "view-dataset.js"
    "view-datasets.js"
    "view-job.js"
    "view-jobs.js"
    "view-new-job.js"
    "view-playground.js"
    "view-system.js"
    "view-usage.js"
    "views.css"
};

static ASSETS: LazyLock<Vec<Asset>> =
    LazyLock::new(|| FILES.into_iter().map(|(name, content)| Asset::new(name, content)).collect());

/// Returns a file by its name.
pub fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

impl Asset {
    fn new(name: &'static str, content: &'static [u8]) -> Self {
        let digest = hex::encode(Sha256::digest(content));
        Self {
            name,
            content_type: content_type(name),
            content,
            compressed: compress(content),
            etag: format!("\"{}\"", &digest[..32]),
        }
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

fn compress(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let compressed = encoder.write_all(content).and_then(|()| encoder.finish());
    compressed.expect("writing to memory does not fail").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    const MAX_COMPRESSED_BYTES: usize = 250_000;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_string()).collect();
        assert_eq!(entries.collect::<BTreeSet<_>>(), names);
    }

    #[test]
    fn all_files_together_are_small() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.compressed.len()).sum();
        assert!(bytes < MAX_COMPRESSED_BYTES, "{bytes} bytes compressed");
    }
}
