//! Accept loop and graceful shutdown.
//!
//! `axum::serve` has no timeout for request headers and does not close connections that exceed the shutdown timeout.
//! `hyper_util::server::graceful` polls the shutdown signal before the connection, so a request that has arrived but is not read
//! yet would be dropped; this loop polls the connection first.

use super::connection::{ConnectionLimiter, ConnectionSettings, ConnectionShutdown, serve_connection};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::map_response_with_state;
use axum::response::Response;
use espalier_core::error::{Context, Result};
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Delay after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);
/// Minimum time between two log lines about failed accepts.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Time to accept connections after shutdown was requested, so that load balancers see a failed readiness check and clients
/// with kept-alive connections receive `connection: close`.
const SHUTDOWN_ACCEPT_WINDOW: Duration = Duration::from_millis(400);
/// Time to receive the request of a connection accepted just before the listener closed.
const BACKLOG_READ_WINDOW: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is cancelled, then shuts down within `shutdown_timeout`.
///
/// At most `max_connections` connections are open ([`ConnectionLimiter`]).
///
/// After the cancellation every response has `connection: close`, and connections are accepted for
/// [`SHUTDOWN_ACCEPT_WINDOW`]. Then the listener is closed, idle connections are closed, and requests in flight are finished.
/// Connections that are still open after `shutdown_timeout` are aborted. Event streams observe the same token and end.
///
/// # Errors
/// `Internal` if the listener fails. An error of a single connection is logged.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ConnectionSettings,
    max_connections: usize,
    shutdown: CancellationToken,
    shutdown_timeout: Duration,
) -> Result<()> {
    let limiter = ConnectionLimiter::new(max_connections);
    let connections = TaskTracker::new();
    let connection_shutdown =
        ConnectionShutdown { graceful: CancellationToken::new(), immediate: CancellationToken::new() };
    let router = router.layer(map_response_with_state(shutdown.clone(), close_connections_on_shutdown));
    let accept_window = async {
        shutdown.cancelled().await;
        let requested_at = Instant::now();
        sleep(SHUTDOWN_ACCEPT_WINDOW.min(shutdown_timeout)).await;
        requested_at
    };
    let mut accept_window = pin!(accept_window);
    let serve = |stream, slot| {
        connections.spawn(serve_connection(stream, router.clone(), slot, settings, connection_shutdown.clone()))
    };
    let mut last_logged = None;
    let requested_at = loop {
        let open = async { (accept(&listener, &limiter, &mut last_logged).await, limiter.open().await) };
        tokio::select! {
            biased;
            requested_at = accept_window.as_mut() => break requested_at,
            (stream, slot) = open => serve(stream, slot),
        };
    };
    for stream in drain_backlog(listener).context("accepting the last connections")? {
        let Ok(slot) = timeout_at(requested_at + shutdown_timeout, limiter.open()).await else { break };
        serve(stream, slot);
    }
    connections.close();
    sleep(BACKLOG_READ_WINDOW.min(shutdown_timeout)).await;
    connection_shutdown.graceful.cancel();
    if timeout_at(requested_at + shutdown_timeout, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests aborted after the shutdown timeout");
        connection_shutdown.immediate.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// Adds `connection: close` during shutdown: a request sent just as the server closes the connection would be lost.
async fn close_connections_on_shutdown(State(shutdown): State<CancellationToken>, mut response: Response) -> Response {
    if shutdown.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Accepts a connection. Where the process has no free file descriptor, closes the connection that has been idle longest.
/// `last_logged` is the time of the last log line about a failure.
async fn accept(listener: &TcpListener, limiter: &ConnectionLimiter, last_logged: &mut Option<Instant>) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_client_error(error.kind()) => {}
            Err(error) => {
                if last_logged.is_none_or(|time| time.elapsed() >= ACCEPT_LOG_INTERVAL) {
                    tracing::error!(error = %error, "accepting a connection failed");
                    *last_logged = Some(Instant::now());
                }
                let make_room = timeout(ACCEPT_BACKOFF, limiter.close_longest_idle());
                if !is_descriptor_limit(&error) || make_room.await != Ok(true) {
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

/// Returns whether the process or the system has no free file descriptor.
fn is_descriptor_limit(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].into_iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Accepts the connections in the listener's backlog; closing the listener would reset them.
fn drain_backlog(listener: TcpListener) -> io::Result<Vec<TcpStream>> {
    let listener = listener.into_std()?;
    let mut streams = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        streams.push(TcpStream::from_std(stream)?);
    }
    Ok(streams)
}

/// Returns whether the client closed the connection before it was accepted.
fn is_client_error(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    struct Server {
        address: std::net::SocketAddr,
        shutdown: CancellationToken,
        done: tokio::task::JoinHandle<Result<()>>,
        /// Notified when the handler starts.
        request_started: Arc<Notify>,
        /// Lets the handler finish.
        finish_request: Arc<Notify>,
    }

    async fn start(shutdown_timeout: Duration) -> Server {
        start_with_limit(1000, shutdown_timeout).await
    }

    async fn start_with_limit(max_connections: usize, shutdown_timeout: Duration) -> Server {
        let (request_started, finish_request) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (notify_started, finish) = (request_started.clone(), finish_request.clone());
        let slow = move || async move {
            notify_started.notify_one();
            finish.notified().await;
            "done"
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(slow)).route("/fast", get(|| async { "done" }));
        let settings = ConnectionSettings::default();
        let done = tokio::spawn(serve(listener, router, settings, max_connections, shutdown.clone(), shutdown_timeout));
        Server { address, shutdown, done, request_started, finish_request }
    }

    async fn send_request(server: &Server) -> TcpStream {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.request_started.notified().await;
        stream
    }

    #[tokio::test]
    async fn in_flight_request_completes_during_shutdown() {
        let server = start(Duration::from_secs(60)).await;
        let mut stream = send_request(&server).await;
        server.shutdown.cancel();
        server.finish_request.notify_one();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        server.done.await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn new_request_during_accept_window_is_answered_with_connection_close() {
        let server = start(Duration::from_secs(60)).await;
        server.shutdown.cancel();
        let mut stream = send_request(&server).await;
        server.finish_request.notify_one();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
        server.done.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn idle_connection_does_not_delay_shutdown() {
        let server = start(Duration::from_secs(60)).await;
        let _idle = TcpStream::connect(server.address).await.unwrap();
        server.shutdown.cancel();
        server.done.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn request_is_aborted_after_shutdown_timeout() {
        let server = start(Duration::from_millis(1)).await;
        let mut stream = send_request(&server).await;
        server.shutdown.cancel();
        server.done.await.unwrap().unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "");
    }

    #[tokio::test]
    async fn idle_connections_give_way_to_new_ones() {
        let server = start_with_limit(4, Duration::from_secs(60)).await;
        let mut idle = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            // Half of them send part of a request.
            if idle.len() % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
            }
            idle.push(stream);
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /fast HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        // The oldest has been closed, the newest is open.
        assert_eq!(idle[0].read(&mut head).await.unwrap(), 0);
        idle[39].write_all(b"GET /fast HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_ne!(idle[39].read(&mut head).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn busy_connections_are_kept_and_a_new_one_is_refused() {
        let server = start_with_limit(1, Duration::from_secs(60)).await;
        let mut busy = send_request(&server).await;
        let mut refused = TcpStream::connect(server.address).await.unwrap();
        refused.write_all(b"GET /fast HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        refused.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        server.finish_request.notify_one();
        let mut head = [0; 12];
        busy.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let mut accepted = TcpStream::connect(server.address).await.unwrap();
        accepted.write_all(b"GET /fast HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        accepted.read_exact(&mut head).await.unwrap();
        accepted.write_all(b"GET /fast HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        accepted.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "the connection is within the limit: {answer}");
    }
}
