//! An S3 server on a folder, with faults that tests choose.

use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const BUCKET: &str = "espalier";
const ACCESS_KEY: &str = "access-key-of-the-tests";
const SECRET_KEY: &str = "secret-key-of-the-tests";

/// What happens to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every nth request gets the status 500.
    InternalError(u64),
    /// Every nth request gets the status 503 with the code `SlowDown`.
    SlowDown(u64),
    /// The connections of the next n reads of objects end in the middle of the body.
    CutBody(u64),
    /// A byte of each of the next n objects that are read differs, another one each time.
    WrongByte(u64),
    /// An object cannot be read until this long after it was written.
    ReadAfterWriteDelay(Duration),
    /// Every request takes this much longer.
    Delay(Duration),
    /// No request is answered.
    Down,
}

/// Runs until it is dropped.
pub struct S3Server {
    pub address: SocketAddr,
    root: TempDir,
    faults: Arc<FaultInjection>,
    _runtime: Runtime,
}

struct FaultInjection {
    root: PathBuf,
    fault: Mutex<Fault>,
    requests: AtomicU64,
    /// Reads of objects since the fault was set.
    reads: AtomicU64,
    /// Requests that a fault has changed.
    injected: AtomicU64,
}

type Reply = Response<s3s::Body>;

impl S3Server {
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let faults = Arc::new(FaultInjection {
            root: root.path().to_path_buf(),
            fault: Mutex::new(Fault::None),
            requests: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            injected: AtomicU64::new(0),
        });
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&faults);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, service.clone(), Arc::clone(&shared)));
            }
        });
        Self { address, root, faults, _runtime: runtime }
    }

    /// URL for `--blob-store`.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint=http://{}&region=us-east-1", self.address)
    }

    /// Credentials in the environment of a server process.
    pub fn credentials() -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)]
    }

    pub fn set_fault(&self, fault: Fault) {
        self.faults.reads.store(0, Ordering::SeqCst);
        *self.faults.fault.lock().unwrap() = fault;
    }

    /// Number of requests that a fault has changed.
    pub fn injected_faults(&self) -> u64 {
        self.faults.injected.load(Ordering::SeqCst)
    }

    /// Files of the objects below a prefix, relative to it.
    pub fn objects(&self, prefix: &str) -> Vec<PathBuf> {
        let root = self.root.path().join(BUCKET).join(prefix);
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
                match entry.path().is_dir() {
                    true => folders.push(entry.path()),
                    false => found.push(entry.path().strip_prefix(&root).unwrap().to_path_buf()),
                }
            }
        }
        found.sort();
        found
    }

    /// File of an object.
    pub fn file(&self, key: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }
}

async fn serve(stream: TcpStream, service: S3Service, faults: Arc<FaultInjection>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, faults) = (service.clone(), Arc::clone(&faults));
        async move { faults.answer(service, request).await }
    });
    // A client that disconnects ends its connection with an error.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
}

impl FaultInjection {
    async fn answer(&self, service: S3Service, request: Request<Incoming>) -> Result<Reply, std::io::Error> {
        let fault = *self.fault.lock().unwrap();
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let hits = |every: u64| number.is_multiple_of(every);
        // A listing has no key.
        let reads_object = request.method() == Method::GET && request.uri().path().matches('/').count() > 1;
        match fault {
            Fault::InternalError(every) if hits(every) => {
                return Ok(self.error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
            }
            Fault::SlowDown(every) if hits(every) => return Ok(self.error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
            Fault::Down => return Err(std::io::Error::other("the server is down")),
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
        if let (Fault::ReadAfterWriteDelay(delay), true) = (fault, reads_object)
            && self.is_younger(request.uri().path(), delay)
        {
            return Ok(self.error(StatusCode::NOT_FOUND, "NoSuchKey"));
        }
        let mut reply = hyper::service::Service::call(&service, request).await.map_err(std::io::Error::other)?;
        if !reads_object || reply.status() != StatusCode::OK {
            return Ok(reply);
        }
        let read_number = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        match fault {
            Fault::CutBody(count) if read_number <= count => {
                self.injected.fetch_add(1, Ordering::SeqCst);
                let bytes = read(&mut reply).await;
                let half = bytes[..bytes.len() / 2].to_vec();
                // The header still names the whole length.
                let chunks = [Ok(half.into()), Err(std::io::Error::other("cut"))];
                let body = http_body_util::StreamBody::new(futures_util::stream::iter(
                    chunks.map(|chunk: std::io::Result<bytes::Bytes>| chunk.map(hyper::body::Frame::data)),
                ));
                *reply.body_mut() = s3s::Body::http_body_unsync(body);
                Ok(reply)
            }
            Fault::WrongByte(count) if read_number <= count => {
                self.injected.fetch_add(1, Ordering::SeqCst);
                let mut bytes = read(&mut reply).await;
                if let Some(last) = bytes.len().checked_sub(1) {
                    bytes[read_number as usize * 7919 % (last + 1)] ^= 1;
                }
                *reply.body_mut() = bytes.into();
                Ok(reply)
            }
            _ => Ok(reply),
        }
    }

    /// Whether an object was written less than this long ago.
    fn is_younger(&self, path: &str, age: Duration) -> bool {
        let modified = std::fs::metadata(self.root.join(path.trim_start_matches('/'))).and_then(|file| file.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed < age))
    }

    fn error(&self, status: StatusCode, code: &str) -> Reply {
        self.injected.fetch_add(1, Ordering::SeqCst);
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>");
        Response::builder()
            .status(status)
            .header("content-type", "application/xml")
            .body(s3s::Body::from(body))
            .unwrap()
    }
}

async fn read(reply: &mut Reply) -> Vec<u8> {
    let size = reply.body().size_hint().upper().unwrap_or(1 << 30);
    let limit = usize::try_from(size).unwrap();
    std::mem::take(reply.body_mut()).store_all_limited(limit).await.unwrap().to_vec()
}
