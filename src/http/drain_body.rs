//! Drains request bodies that a handler did not read to the end.
//!
//! Closing a TCP connection with unread data sends a reset, which can discard a response that is still in flight: the client
//! sees a broken pipe instead of the error. The rest of the body is therefore read and discarded, within limits.

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;

/// Maximum time to drain a body; the connection is closed after it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a body that the handler was waiting for: all that had arrived was read.
const SLOW_DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum number of bytes to drain; the connection is closed after it.
const MAX_DRAIN_BYTES: usize = 256 * 1024 * 1024;

/// Whether the handler of a request is waiting for more of its body; an extension of requests with a body.
#[derive(Clone, Default)]
pub struct BodyWait(Arc<AtomicBool>);

impl BodyWait {
    pub fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Wraps the request's body so that dropping it drains the rest, and adds a [`BodyWait`].
pub async fn drain_request_body(mut request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let wait = BodyWait::default();
    request.extensions_mut().insert(wait.clone());
    request.map(|body| Body::from_stream(DrainOnDrop { body: Some(body.into_data_stream()), wait }))
}

struct DrainOnDrop {
    /// `None` after the end of the body.
    body: Option<BodyDataStream>,
    wait: BodyWait,
}

impl Stream for DrainOnDrop {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(context);
        self.wait.0.store(polled.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            self.body = None;
        }
        polled
    }
}

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        let was_waiting = self.wait.0.swap(false, Ordering::Relaxed);
        let timeout = if was_waiting { SLOW_DRAIN_TIMEOUT } else { DRAIN_TIMEOUT };
        if let (Some(body), Ok(runtime)) = (self.body.take(), Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(timeout, drain(body)));
        }
    }
}

async fn drain(mut body: BodyDataStream) {
    let mut bytes = 0;
    while let Some(Ok(chunk)) = body.next().await {
        bytes += chunk.len();
        if bytes > MAX_DRAIN_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::map_request;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn client_rejected_while_sending_reads_the_response() {
        let reject = || async { (StatusCode::FORBIDDEN, "no") };
        let router = Router::new().route("/", post(reject)).layer(map_request(drain_request_body));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (chunk, chunks) = (vec![b'x'; 64 * 1024], 512);
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            chunk.len() * chunks
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..chunks {
            stream.write_all(&chunk).await.unwrap();
        }
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 403") && response.ends_with("no"), "{response}");
    }
}
