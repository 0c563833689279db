//! Listens, and stops without losing a request.
//!
//! A loop of its own rather than axum's, for two things that axum does not offer: a client that never finishes its
//! headers is not waited for, and connections that outlive the grace are closed. Knows nothing of what is answered.

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

/// For a request's headers, and for the next request on a connection that is kept open.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// After the system has refused a connection, usually because no file descriptor is free.
const ACCEPT_BACKOFF: Duration = Duration::from_secs(1);

/// How long connections are still accepted after the stop was asked for: whoever looks learns that this server is not
/// ready any more, and clients that keep a connection are told to open another.
const SHUTDOWN_ACCEPT_WINDOW: Duration = Duration::from_millis(400);
/// For the request of a connection that came in just before the listener closed.
const BACKLOG_READ_WINDOW: Duration = Duration::from_millis(100);

/// When a connection has to end.
#[derive(Clone)]
struct ConnectionShutdown {
    /// After the request that is under way.
    graceful: CancellationToken,
    immediate: CancellationToken,
}

/// Serves until `shutdown` is cancelled. Then, within `grace`: streams end by themselves (they see the same token);
/// every answer says that its connection ends with it, and new connections are still answered, for a moment; after that
/// none is accepted any more, idle ones are closed, and requests under way are finished. What is left is cut off.
///
/// # Errors
/// `Internal` where the listener breaks. A failing connection is that client's matter alone.
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
            AcceptEvent::ShutdownRequested(asked) => break asked,
        };
    };
    for stream in drain_backlog(listener).context("accepting the last connections")? {
        connections.spawn(serve_connection(stream, router.clone(), connection_shutdown.clone()));
    }
    connections.close();
    sleep(BACKLOG_READ_WINDOW.min(shutdown_timeout)).await;
    connection_shutdown.graceful.cancel();
    if timeout_at(requested_at + shutdown_timeout, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were cut off: they took longer than the grace");
        connection_shutdown.immediate.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// A request that is sent on a connection just as it is closed would be lost, so the client hears of it before.
async fn close_connections_on_shutdown(State(shutdown): State<CancellationToken>, mut response: Response) -> Response {
    if shutdown.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

enum AcceptEvent {
    Connection(TcpStream),
    /// The server has to stop, and was asked to at this time.
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
                tracing::error!(error = %error, "no connection can be accepted");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The connections that the system has accepted for us already: closing the listener would reset them.
fn drain_backlog(listener: TcpListener) -> io::Result<Vec<TcpStream>> {
    let listener = listener.into_std()?;
    let mut streams = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        streams.push(TcpStream::from_std(stream)?);
    }
    Ok(streams)
}

/// Whether this went wrong on the other side, before we had the connection.
fn is_client_error(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

async fn serve_connection(stream: TcpStream, router: Router, connection_shutdown: ConnectionShutdown) {
    // answers are small and written at once: waiting for more to send would only delay them
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "connection keeps its delay");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let result = tokio::select! {
        // A request that has arrived is read before the connection may count as idle.
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
        tracing::debug!(error = %error, "connection broke off");
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
        /// A request has begun; it may go on.
        request_started: Arc<Notify>,
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
        Server { address, shutdown, done, request_started: request_started, finish_request: finish_request }
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
