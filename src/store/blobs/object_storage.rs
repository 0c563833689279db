//! Object storage of blobs: S3 and stores that speak its protocol, Google Cloud Storage, Azure Blob Storage, or a folder.

use super::metrics::ObjectStorageMetrics;
use espalier_core::error::{Context, Error, Result};
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::buffered::BufWriter;
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;
use uuid::Uuid;

/// Files up to this size are uploaded by one request, larger ones in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// Parts of a file that are uploaded at the same time.
const CONCURRENT_PARTS: usize = 4;
/// Delays of retries after connection errors, 429, `SlowDown` and other 5xx.
const BACKOFF: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
const MAX_RETRIES: usize = 10;
/// Time after which a call that was retried fails.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// `Retry-After` of requests that need a blob while the object storage is unavailable.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Parts of the names of options that hold secrets, which come from the environment instead.
const SECRET_OPTIONS: [&str; 8] =
    ["access_key", "account_key", "customer_key", "password", "sas_", "secret", "service_account_key", "token"];

/// Bucket, or part of one, that holds blobs.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    objects: Arc<dyn ObjectStore>,
    /// URL without its options.
    name: String,
    metrics: ObjectStorageMetrics,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub key: String,
    pub bytes: u64,
}

impl ObjectStorage {
    /// Opens `s3://bucket/prefix?endpoint=…&region=…`, `gs://bucket/prefix`, `az://container/prefix?account_name=…` or `file:///folder`.
    /// Credentials come from the environment (`AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_KEY`, …) or from the
    /// machine's identity. Options of the URL are those of the `object_store` crate. Nothing is sent.
    ///
    /// # Errors
    /// `Invalid` (`invalid_blob_store`).
    pub fn open(url: &str) -> Result<Self> {
        let parsed = Url::parse(url).map_err(|error| invalid(format!("it is not a URL ({error})")))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(invalid("credentials do not belong into the URL: set them in the environment".to_string()));
        }
        // An error says that there is one already, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let objects: Arc<dyn ObjectStore> = match parsed.scheme() {
            "s3" => open_s3(&parsed)?,
            "gs" => open_gcs(&parsed)?,
            "az" => open_azure(&parsed)?,
            "file" => open_folder(&parsed)?,
            other => return Err(invalid(format!("\"{other}://\" is not supported: use s3, gs, az or file"))),
        };
        let mut name = parsed.clone();
        name.set_query(None);
        let prefix = if parsed.scheme() == "file" { "" } else { parsed.path().trim_matches('/') };
        let prefix = Key::parse(prefix).map_err(|error| invalid(error.to_string()))?;
        let objects = Arc::new(PrefixStore::new(objects, prefix));
        Ok(Self { objects, name: name.to_string(), metrics: ObjectStorageMetrics::default() })
    }

    /// URL without its options.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uploads a file. Nothing of it is visible before the whole of it is there.
    pub async fn upload(&self, key: &str, file: &Path) -> Result<()> {
        let bytes = self.record("upload", self.upload_file(key, file)).await?;
        self.metrics.record_bytes("upload", bytes);
        Ok(())
    }

    /// Returns the size of the file.
    async fn upload_file(&self, key: &str, file: &Path) -> Result<u64> {
        let mut reader = File::open(file).await.with_context(|| format!("opening {}", file.display()))?;
        let size = reader.metadata().await.with_context(|| format!("reading {}", file.display()))?.len();
        if size <= PART_BYTES as u64 {
            let mut bytes = Vec::with_capacity(size as usize);
            reader.read_to_end(&mut bytes).await.with_context(|| format!("reading {}", file.display()))?;
            self.put(key, bytes).await?;
            return Ok(size);
        }
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.objects), parse_key(key)?, PART_BYTES)
            .with_max_concurrency(CONCURRENT_PARTS);
        let copied = async {
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        };
        let copied = copied.await;
        if copied.is_err() {
            // Parts that stay behind after this fails are removed by a rule of the bucket.
            drop(writer.abort().await);
        }
        copied.map_err(|error| self.unavailable("uploading", key, &error.to_string()))?;
        Ok(size)
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let put = self.objects.put(&parse_key(key)?, PutPayload::from(bytes)).await;
        put.map(drop).map_err(|error| self.error("uploading", key, error))
    }

    /// Writes an object to a new file, syncs it, and returns its sha256 in hexadecimal; `None` if there is no object. There is no file after
    /// an error.
    pub async fn download(&self, key: &str, file: &Path) -> Result<Option<String>> {
        let downloaded = self.record("download", self.download_file(key, file)).await;
        if downloaded.is_err() {
            drop(tokio::fs::remove_file(file).await);
        }
        downloaded
    }

    async fn download_file(&self, key: &str, file: &Path) -> Result<Option<String>> {
        let found = match self.objects.get(&parse_key(key)?).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.error("downloading", key, error)),
        };
        let mut writer = File::create(file).await.with_context(|| format!("creating {}", file.display()))?;
        let mut hash = Sha256::new();
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(|error| self.error("downloading", key, error))? {
            hash.update(&chunk);
            self.metrics.record_bytes("download", chunk.len() as u64);
            writer.write_all(&chunk).await.with_context(|| format!("writing {}", file.display()))?;
        }
        writer.sync_all().await.with_context(|| format!("syncing {}", file.display()))?;
        Ok(Some(hex::encode(hash.finalize())))
    }

    /// Content of an object; `None` if it does not exist.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = parse_key(key)?;
        let read = async {
            match async { self.objects.get(&path).await?.bytes().await }.await {
                Ok(bytes) => Ok(Some(Vec::from(bytes))),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.error("downloading", key, error)),
            }
        };
        let found = self.record("download", read).await?;
        self.metrics.record_bytes("download", found.as_ref().map_or(0, |bytes| bytes.len() as u64));
        Ok(found)
    }

    /// Moves an object whose content is not what its key says to `quarantine/`, so that an upload replaces it.
    pub async fn quarantine(&self, key: &str) -> Result<()> {
        tracing::error!(key, storage = self.name, "an object is damaged; it is moved to quarantine/");
        let (path, target) = (parse_key(key)?, parse_key(&format!("quarantine/{key}"))?);
        let copy = async {
            match self.objects.copy(&path, &target).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.error("copying", key, error)),
            }
        };
        self.record("copy", copy).await?;
        self.delete(key).await
    }

    pub async fn contains(&self, key: &str) -> Result<bool> {
        let path = parse_key(key)?;
        let head = async {
            match self.objects.head(&path).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(self.error("looking for", key, error)),
            }
        };
        self.record("head", head).await
    }

    /// Objects whose key is in the folder `prefix`, sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let key = parse_key(prefix)?;
        let list = async {
            let listed = self.objects.list(Some(&key));
            let listed = listed.map_ok(|object| ListedObject { key: object.location.to_string(), bytes: object.size });
            let listed: std::result::Result<Vec<ListedObject>, _> = listed.try_collect().await;
            listed.map_err(|error| self.error("listing", prefix, error))
        };
        let mut listed = self.record("list", list).await?;
        listed.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(listed)
    }

    /// Deletes an object; one that does not exist is deleted already.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let path = parse_key(key)?;
        let delete = async {
            match self.objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.error("deleting", key, error)),
            }
        };
        self.record("delete", delete).await
    }

    /// Writes an object, reads it and deletes it.
    ///
    /// # Errors
    /// `Busy` (`object_storage_unavailable`); the log has the reason.
    pub async fn check(&self) -> Result<()> {
        let key = format!("checks/{}", Uuid::now_v7());
        self.put(&key, key.clone().into_bytes()).await?;
        let found = self.get(&key).await;
        self.delete(&key).await?;
        match found?.is_some_and(|found| found == key.as_bytes()) {
            true => Ok(()),
            false => Err(self.unavailable("reading", &key, "it does not give back what was written")),
        }
    }

    pub fn metrics(&self) -> &ObjectStorageMetrics {
        &self.metrics
    }

    async fn record<T>(&self, operation: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let started_at = Instant::now();
        let result = call.await;
        self.metrics.record_call(operation, result.is_ok(), started_at.elapsed());
        result
    }

    fn error(&self, operation: &str, key: &str, error: object_store::Error) -> Error {
        match error {
            object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => {
                tracing::error!(%error, operation, key, "the object storage refuses the credentials, or the clock of this host");
                self.unavailable(operation, key, "it refuses the credentials, or the clock of this host")
            }
            error => self.unavailable(operation, key, &error.to_string()),
        }
    }

    fn unavailable(&self, operation: &str, key: &str, reason: &str) -> Error {
        tracing::warn!(operation, key, reason, storage = self.name, "call to the object storage failed");
        unavailable()
    }
}

/// Error of a call that needs a blob while the object storage does not give it.
pub fn unavailable() -> Error {
    let detail = "the object storage is not available: try again later";
    Error::busy("object_storage_unavailable", detail, UNAVAILABLE_RETRY_AFTER)
}

fn parse_key(key: &str) -> Result<Key> {
    Key::parse(key).with_context(|| format!("naming the object {key}"))
}

fn invalid(reason: String) -> Error {
    Error::invalid("invalid_blob_store", format!("--blob-store (ESPALIER_BLOB_STORE): {reason}"))
}

/// Options of the URL that are settings of the storage, and others, which are settings of the HTTP client.
fn options<K: FromStr>(url: &Url) -> Result<(Vec<(K, String)>, ClientOptions)> {
    let mut settings = Vec::new();
    let mut client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        .with_timeout_disabled();
    for (name, value) in url.query_pairs() {
        if SECRET_OPTIONS.iter().any(|secret| name.contains(secret)) {
            return Err(invalid(format!("\"{name}\" does not belong into the URL: set it in the environment")));
        }
        if name == "endpoint" && value.starts_with("http://") {
            client = client.with_allow_http(true);
        }
        if let Ok(key) = K::from_str(&name) {
            settings.push((key, value.into_owned()));
        } else if let Ok(key) = ClientConfigKey::from_str(&name) {
            client = client.with_config(key, value);
        } else {
            return Err(invalid(format!("there is no option \"{name}\" for {}://", url.scheme())));
        }
    }
    Ok((settings, client))
}

fn retry_config() -> RetryConfig {
    RetryConfig { backoff: BACKOFF, max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT }
}

fn bucket(url: &Url) -> Result<&str> {
    url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| invalid(format!("{url} names no bucket")))
}

fn not_usable(error: object_store::Error) -> Error {
    invalid(error.to_string())
}

fn open_s3(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let (settings, client) = options::<AmazonS3ConfigKey>(url)?;
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket(url)?)
        .with_client_options(client)
        .with_retry(retry_config());
    let builder = settings.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.build().map_err(not_usable)?))
}

fn open_gcs(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let (settings, client) = options::<GoogleConfigKey>(url)?;
    let builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket(url)?)
        .with_client_options(client)
        .with_retry(retry_config());
    let builder = settings.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.build().map_err(not_usable)?))
}

fn open_azure(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let (settings, client) = options::<AzureConfigKey>(url)?;
    let builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(bucket(url)?)
        .with_client_options(client)
        .with_retry(retry_config());
    let builder = settings.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    Ok(Arc::new(builder.build().map_err(not_usable)?))
}

fn open_folder(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let folder = url.to_file_path().map_err(|()| invalid(format!("{url} is not the path of a folder")))?;
    std::fs::create_dir_all(&folder).map_err(|error| invalid(format!("{}: {error}", folder.display())))?;
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(not_usable)?.with_fsync(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let error = ObjectStorage::open(url).unwrap_err();
        assert_eq!(error.code(), "invalid_blob_store");
        error.to_string()
    }

    #[test]
    fn urls_of_every_storage_are_opened() {
        for (url, name) in [
            ("s3://bucket/a/b?region=eu-central-1", "s3://bucket/a/b"),
            ("s3://bucket?endpoint=http://localhost:9000&region=us-east-1&sse_kms_key_id=alias", "s3://bucket"),
            ("az://container/prefix?account_name=account", "az://container/prefix"),
        ] {
            assert_eq!(ObjectStorage::open(url).unwrap().name(), name);
        }
    }

    #[test]
    fn wrong_urls_and_credentials_in_them_are_refused() {
        for (url, reason) in [
            ("bucket/prefix", "it is not a URL"),
            ("ftp://bucket", "is not supported"),
            ("s3:///prefix", "names no bucket"),
            ("s3://bucket?colour=red", "there is no option \"colour\""),
            ("s3://key:secret@bucket", "in the environment"),
            ("s3://bucket?secret_access_key=hidden", "in the environment"),
            ("s3://bucket?session_token=hidden", "in the environment"),
            ("az://container?account_name=account&account_key=hidden", "in the environment"),
        ] {
            let shown = refusal(url);
            assert!(shown.contains(reason) && !shown.contains("hidden"), "{url}: {shown}");
        }
    }
}
