//! HTTP/2 by prior knowledge. A connection that is idle, or whose client reads no response, is closed after the same times as one of
//! HTTP/1; hyper has no limit for either.

use super::limiter::ConnectionSlot;
use super::limiter::RequestGuard;
use super::protocol::ConnectionStart;
use super::run::run;
use super::service::ConnectionService;
use super::settings::{ConnectionSettings, ConnectionShutdown};
use super::write_timeout::WriteTimeout;
use crate::http::guarded_body::GuardedBody;
use axum::body::{Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io::Cursor;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// How often a connection is checked within the shorter of its time limits.
const CHECKS_PER_TIMEOUT: u32 = 4;

/// Serves the requests on one connection until either side closes it.
///
/// # Errors
/// Those of the protocol and of the stream.
pub async fn serve(
    stream: TcpStream,
    start: ConnectionStart,
    service: ConnectionService,
    settings: &ConnectionSettings,
    shutdown: &ConnectionShutdown,
) -> hyper::Result<()> {
    let slot = Arc::clone(&service.slot);
    let (read_half, write_half) = stream.into_split();
    let read_half = Cursor::new(start.bytes).chain(read_half);
    let stream = tokio::io::join(read_half, WriteTimeout::new(write_half, settings.write_timeout));
    let activity = Arc::new(Activity::default());
    let service = MonitoredService { service, activity: Arc::clone(&activity) };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_http2_streams)
        .max_header_list_size(u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(stream), service);
    let graceful = shutdown.graceful.child_token();
    let shutdown = ConnectionShutdown { graceful: graceful.clone(), immediate: shutdown.immediate.clone() };
    let mut connection = pin!(run(connection, &slot, &shutdown));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        unused = activity.unused(&slot, settings.keep_alive_timeout, settings.write_timeout) => match unused {
            Unused::Idle => graceful.cancel(),
            Unused::Stalled => {
                tracing::debug!("the client does not read the response");
                return Ok(());
            }
        },
    }
    tokio::select! {
        ended = connection => ended,
        _ = activity.unused(&slot, settings.write_timeout, settings.write_timeout) => Ok(()),
    }
}

/// Requests and responses of a connection, to notice that nothing happens.
#[derive(Default)]
struct Activity {
    /// Number of events: requests, frames and ends of responses.
    events: AtomicU64,
    /// Responses with a frame that the client has not taken yet.
    blocked_responses: AtomicUsize,
}

/// Why a connection is closed.
#[derive(Debug, PartialEq, Eq)]
enum Unused {
    /// No request is in flight.
    Idle,
    /// The client reads no response.
    Stalled,
}

impl Activity {
    fn record(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the connection has been idle for `idle_timeout`, or its client has taken nothing for `stall_timeout`.
    async fn unused(&self, slot: &ConnectionSlot, idle_timeout: Duration, stall_timeout: Duration) -> Unused {
        let interval = idle_timeout.min(stall_timeout) / CHECKS_PER_TIMEOUT;
        let (mut events, mut last_event) = (self.events.load(Ordering::Relaxed), Instant::now());
        loop {
            sleep(interval).await;
            let current = self.events.load(Ordering::Relaxed);
            if current != events {
                (events, last_event) = (current, Instant::now());
            } else if slot.is_idle() && last_event.elapsed() >= idle_timeout {
                return Unused::Idle;
            } else if self.blocked_responses.load(Ordering::Relaxed) > 0 && last_event.elapsed() >= stall_timeout {
                return Unused::Stalled;
            }
        }
    }
}

/// Records the requests of a connection.
struct MonitoredService {
    service: ConnectionService,
    activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for MonitoredService {
    type Response = Response<MonitoredBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.record();
        let (response, activity) = (self.service.call(request), Arc::clone(&self.activity));
        Box::pin(async move { Ok(response.await?.map(|body| MonitoredBody { body, activity, is_blocked: false })) })
    }
}

/// Response body that records when the client takes it.
struct MonitoredBody {
    body: GuardedBody<RequestGuard>,
    activity: Arc<Activity>,
    /// Whether the last frame is counted in [`Activity::blocked_responses`].
    is_blocked: bool,
}

impl MonitoredBody {
    /// Counts the last frame as taken: hyper asks for the next one, or drops the body.
    fn unblock(&mut self) {
        self.activity.record();
        if std::mem::take(&mut self.is_blocked) {
            self.activity.blocked_responses.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl HttpBody for MonitoredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.unblock();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            self.is_blocked = true;
            self.activity.blocked_responses.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for MonitoredBody {
    fn drop(&mut self) {
        self.unblock();
    }
}

#[cfg(test)]
mod tests {
    use super::super::limiter::ConnectionLimiter;
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    async fn slot() -> Arc<ConnectionSlot> {
        Arc::new(ConnectionLimiter::new(1).open().await)
    }

    #[tokio::test]
    async fn connection_without_requests_is_idle() {
        assert_eq!(Activity::default().unused(&*slot().await, SHORT, LONG).await, Unused::Idle);
    }

    #[tokio::test]
    async fn connection_is_stalled_while_the_client_takes_no_frame() {
        let (slot, activity) = (slot().await, Activity::default());
        let request = slot.start_request();
        // The handler of a request in flight may take any time.
        assert!(tokio::time::timeout(5 * SHORT, activity.unused(&slot, SHORT, SHORT)).await.is_err());
        activity.blocked_responses.fetch_add(1, Ordering::Relaxed);
        assert_eq!(activity.unused(&slot, LONG, SHORT).await, Unused::Stalled);
        drop(request);
    }
}
