//! Accept loop and graceful shutdown.
//!
//! `axum::serve` has no timeout for request headers and does not close connections that exceed the shutdown timeout.
//! `hyper_util::server::graceful` polls the shutdown signal before the connection, so a request that has arrived but is not read
//! yet would be dropped; this loop polls the connection first.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::map_response_with_state;
use axum::response::Response;
use espalier_core::error::{Context, Result};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Maximum time to receive the request headers, and to wait for the next request of a kept-alive connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Delay after a failed accept; usually the process has no free file descriptor.
const ACCEPT_BACKOFF: Duration = Duration::from_secs(1);

/// Time to accept connections after shutdown was requested, so that load balancers see a failed readiness check and clients
/// with kept-alive connections receive `connection: close`.
const SHUTDOWN_ACCEPT_WINDOW: Duration = Duration::from_millis(400);
/// Time to receive the request of a connection accepted just before the listener closed.
const BACKLOG_READ_WINDOW: Duration = Duration::from_millis(100);

/// Shutdown signals of connections.
#[derive(Clone)]
struct ConnectionShutdown {
    /// Closes the connection after the request in flight.
    graceful: CancellationToken,
    /// Closes the connection at once.
    immediate: CancellationToken,
}

/// Serves until `shutdown` is cancelled, then shuts down within `shutdown_timeout`.
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
    shutdown: CancellationToken,
    shutdown_timeout: Duration,
) -> Result<()> {
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
    let requested_at = loop {
        match accept(&listener, accept_window.as_mut()).await {
            AcceptEvent::Connection(stream) => {
                connections.spawn(serve_connection(stream, router.clone(), connection_shutdown.clone()))
            }
            AcceptEvent::ShutdownRequested(requested_at) => break requested_at,
        };
    };
    for stream in drain_backlog(listener).context("accepting the last connections")? {
        connections.spawn(serve_connection(stream, router.clone(), connection_shutdown.clone()));
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

/// Outcome of one turn of the accept loop.
enum AcceptEvent {
    Connection(TcpStream),
    /// The accept window has ended; shutdown was requested at this time.
    ShutdownRequested(Instant),
}

async fn accept(listener: &TcpListener, mut accept_window: Pin<&mut impl Future<Output = Instant>>) -> AcceptEvent {
    loop {
        let accepted = tokio::select! {
            biased;
            requested_at = accept_window.as_mut() => return AcceptEvent::ShutdownRequested(requested_at),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => return AcceptEvent::Connection(stream),
            Err(error) if is_client_error(error.kind()) => {}
            Err(error) => {
                tracing::error!(error = %error, "accepting a connection failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
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

async fn serve_connection(stream: TcpStream, router: Router, connection_shutdown: ConnectionShutdown) {
    // Disables Nagle's algorithm: responses are written at once and gain nothing from coalescing.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "setting TCP_NODELAY failed");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        // Reads a request that has arrived before the connection can count as idle.
        biased;
        ended = connection.as_mut() => ended,
        () = connection_shutdown.graceful.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = connection_shutdown.immediate.cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = %error, "connection failed");
    }
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
        let router = Router::new().route("/", get(slow));
        let done = tokio::spawn(serve(listener, router, shutdown.clone(), shutdown_timeout));
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
}
