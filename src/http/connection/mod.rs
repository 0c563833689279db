//! One connection: its place within the limit, its time limits, and the requests on it.

mod chunked;
mod head;
mod limiter;
mod request_stream;

pub use limiter::{ConnectionLimiter, ConnectionSlot};

use super::error::ApiError;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use limiter::RequestGuard;
use request_stream::{RefusedRequest, RequestStream, StreamLimits};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Limits of each connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionSettings {
    /// Maximum time from the end of a request to the end of the headers of the next one. Default 75 s.
    pub keep_alive_timeout: Duration,
    /// Maximum time from the first byte of a request to the end of its headers. Default 15 s.
    pub header_timeout: Duration,
    /// Maximum time in which a client takes no byte of its response. Default 60 s.
    pub write_timeout: Duration,
    /// Maximum size of a request's line and headers in bytes. Default 64 KiB.
    pub max_head_bytes: usize,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            // Longer than the idle timeout of common load balancers (60 s), so that they close first.
            keep_alive_timeout: Duration::from_secs(75),
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(60),
            max_head_bytes: 64 * 1024,
        }
    }
}

/// Shutdown signals of connections.
#[derive(Clone)]
pub struct ConnectionShutdown {
    /// Closes the connection after the request in flight.
    pub graceful: CancellationToken,
    /// Closes the connection at once.
    pub immediate: CancellationToken,
}

/// Extension of requests that the connection refuses: the error to answer.
#[derive(Clone)]
pub enum Rejection {
    /// The connection is beyond the limit.
    TooManyConnections,
    /// The request is malformed, too large or too slow.
    InvalidRequest(ApiError),
}

/// Size of hyper's buffers in bytes, unless heads may be larger.
const BUFFER_BYTES: usize = 400 * 1024;
/// Maximum time for the one request on a connection beyond the limit.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the requests on one connection until either side closes it.
pub async fn serve_connection(
    stream: TcpStream,
    router: Router,
    slot: ConnectionSlot,
    settings: ConnectionSettings,
    shutdown: ConnectionShutdown,
) {
    // Disables Nagle's algorithm: responses are written at once and gain nothing from coalescing.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "setting TCP_NODELAY failed");
    }
    let slot = Arc::new(slot);
    let limits = StreamLimits {
        max_head_bytes: settings.max_head_bytes,
        head_timeout: settings.header_timeout,
        write_timeout: settings.write_timeout,
    };
    let stream = RequestStream::new(stream, Arc::clone(&slot), limits);
    let service = ConnectionService {
        router: TowerToHyperService::new(router),
        slot: Arc::clone(&slot),
        requests: AtomicU64::new(0),
        refused: stream.refused(),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.keep_alive_timeout)
        .max_buf_size(settings.max_head_bytes.saturating_mul(2).max(BUFFER_BYTES))
        .keep_alive(!slot.is_beyond_limit())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        // Reads a request that has arrived before the connection can count as idle.
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.graceful.cancelled() => finish(connection, &shutdown).await,
        () = slot.close_requested().cancelled() => match slot.is_idle() {
            true => Ok(()),
            // A request arrived at the same time.
            false => finish(connection, &shutdown).await,
        },
        () = sleep(REFUSAL_TIMEOUT), if slot.is_beyond_limit() => Ok(()),
    };
    if let Err(error) = result {
        let cause = std::error::Error::source(&error).map(tracing::field::display);
        tracing::debug!(error = %error, cause, "connection failed");
    }
}

type Connection = http1::Connection<TokioIo<RequestStream<TcpStream>>, ConnectionService>;

/// Closes the connection after the request in flight.
async fn finish(mut connection: Pin<&mut Connection>, shutdown: &ConnectionShutdown) -> hyper::Result<()> {
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = shutdown.immediate.cancelled() => Ok(()),
    }
}

/// Calls the router and counts the requests in flight.
struct ConnectionService {
    router: TowerToHyperService<Router>,
    slot: Arc<ConnectionSlot>,
    /// Number of requests so far.
    requests: AtomicU64,
    refused: Arc<Mutex<Option<RefusedRequest>>>,
}

impl ConnectionService {
    /// Counts a request, and returns why it is refused.
    fn rejection(&self) -> Option<Rejection> {
        let index = self.requests.fetch_add(1, Ordering::Relaxed);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match &*refused {
            Some(refused) if refused.index == index => Some(Rejection::InvalidRequest(refused.error.clone())),
            _ => self.slot.is_beyond_limit().then_some(Rejection::TooManyConnections),
        }
    }
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<GuardedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let guard = self.slot.start_request();
        if let Some(rejection) = self.rejection() {
            request.extensions_mut().insert(rejection);
        }
        let response = self.router.call(request);
        Box::pin(async move { Ok(response.await?.map(|body| GuardedBody { body, _request: guard })) })
    }
}

/// Response body that keeps its request in flight until it has been handed to hyper completely.
struct GuardedBody {
    body: Body,
    _request: RequestGuard,
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
