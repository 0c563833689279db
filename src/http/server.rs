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
const HEADER_TIME: Duration = Duration::from_secs(60);
/// After the system has refused a connection, usually because no file descriptor is free.
const REST: Duration = Duration::from_secs(1);

/// How long connections are still accepted after the stop was asked for: whoever looks learns that this server is not
/// ready any more, and clients that keep a connection are told to open another.
const FAREWELL: Duration = Duration::from_millis(400);
/// For the request of a connection that came in just before the listener closed.
const LAST_REQUESTS: Duration = Duration::from_millis(100);

/// When a connection has to end.
#[derive(Clone)]
struct Ends {
    /// After the request that is under way.
    soon: CancellationToken,
    now: CancellationToken,
}

/// Serves until `shutdown` is cancelled. Then, within `grace`: streams end by themselves (they see the same token);
/// every answer says that its connection ends with it, and new connections are still answered, for a moment; after that
/// none is accepted any more, idle ones are closed, and requests under way are finished. What is left is cut off.
///
/// # Errors
/// `Internal` where the listener breaks. A failing connection is that client's matter alone.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, grace: Duration) -> Result<()> {
    let connections = TaskTracker::new();
    let ends = Ends { soon: CancellationToken::new(), now: CancellationToken::new() };
    let router = router.layer(map_response_with_state(shutdown.clone(), say_farewell));
    let farewell = async {
        shutdown.cancelled().await;
        let asked = Instant::now();
        sleep(FAREWELL.min(grace)).await;
        asked
    };
    let mut farewell = pin!(farewell);
    let asked = loop {
        match accept(&listener, farewell.as_mut()).await {
            Event::Connection(stream) => connections.spawn(answer(stream, router.clone(), ends.clone())),
            Event::Closing(asked) => break asked,
        };
    };
    for stream in waiting(listener).context("accepting the last connections")? {
        connections.spawn(answer(stream, router.clone(), ends.clone()));
    }
    connections.close();
    sleep(LAST_REQUESTS.min(grace)).await;
    ends.soon.cancel();
    if timeout_at(asked + grace, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were cut off: they took longer than the grace");
        ends.now.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// A request that is sent on a connection just as it is closed would be lost, so the client hears of it before.
async fn say_farewell(State(shutdown): State<CancellationToken>, mut response: Response) -> Response {
    if shutdown.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

enum Event {
    Connection(TcpStream),
    /// The server has to stop, and was asked to at this time.
    Closing(Instant),
}

async fn accept(listener: &TcpListener, mut closing: Pin<&mut impl Future<Output = Instant>>) -> Event {
    loop {
        let accepted = tokio::select! {
            biased;
            asked = closing.as_mut() => return Event::Closing(asked),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => return Event::Connection(stream),
            Err(error) if is_the_clients(error.kind()) => {}
            Err(error) => {
                tracing::error!(error = %error, "no connection can be accepted");
                sleep(REST).await;
            }
        }
    }
}

/// The connections that the system has accepted for us already: closing the listener would reset them.
fn waiting(listener: TcpListener) -> io::Result<Vec<TcpStream>> {
    let listener = listener.into_std()?;
    let mut streams = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        streams.push(TcpStream::from_std(stream)?);
    }
    Ok(streams)
}

/// Whether this went wrong on the other side, before we had the connection.
fn is_the_clients(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

async fn answer(stream: TcpStream, router: Router, ends: Ends) {
    // answers are small and written at once: waiting for more to send would only delay them
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "connection keeps its delay");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        // A request that has arrived is read before the connection may count as idle.
        biased;
        ended = connection.as_mut() => ended,
        () = ends.soon.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = ends.now.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
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
        begun: Arc<Notify>,
        go_on: Arc<Notify>,
    }

    async fn start(grace: Duration) -> Server {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begin, wait) = (begun.clone(), go_on.clone());
        let slow = move || async move {
            begin.notify_one();
            wait.notified().await;
            "done"
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(slow));
        let done = tokio::spawn(serve(listener, router, shutdown.clone(), grace));
        Server { address, shutdown, done, begun, go_on }
    }

    async fn ask(server: &Server) -> TcpStream {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.begun.notified().await;
        stream
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_after_the_shutdown_began() {
        let server = start(Duration::from_secs(60)).await;
        let mut stream = ask(&server).await;
        server.shutdown.cancel();
        server.go_on.notify_one();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        server.done.await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn a_request_that_comes_just_after_the_shutdown_began_is_answered_and_told_to_go_elsewhere() {
        let server = start(Duration::from_secs(60)).await;
        server.shutdown.cancel();
        let mut stream = ask(&server).await;
        server.go_on.notify_one();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
        server.done.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_hold_up_the_shutdown() {
        let server = start(Duration::from_secs(60)).await;
        let _idle = TcpStream::connect(server.address).await.unwrap();
        server.shutdown.cancel();
        server.done.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_outlives_the_grace_is_cut_off() {
        let server = start(Duration::from_millis(1)).await;
        let mut stream = ask(&server).await;
        server.shutdown.cancel();
        server.done.await.unwrap().unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "");
    }
}
