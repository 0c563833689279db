//! One connection of HTTP/1 or HTTP/2: its place within the limit, its time limits, and the requests on it.

mod chunked;
mod head;
mod http1;
mod http2;
mod limiter;
mod protocol;
mod request_stream;
mod run;
mod service;
mod settings;
mod timer;
mod write_timeout;

pub use limiter::{ConnectionLimiter, ConnectionSlot};
pub use service::Rejection;
pub use settings::{ConnectionSettings, ConnectionShutdown};

use super::client_address::ClientAddress;
use axum::Router;
use protocol::{Protocol, read_start};
use run::REFUSAL_TIMEOUT;
use service::ConnectionService;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Serves the requests on one connection until either side closes it.
pub async fn serve_connection(
    mut stream: TcpStream,
    router: Router,
    slot: ConnectionSlot,
    settings: ConnectionSettings,
    shutdown: ConnectionShutdown,
) {
    // Disables Nagle's algorithm: responses are written at once and gain nothing from coalescing.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "setting TCP_NODELAY failed");
    }
    let start = tokio::select! {
        // Reads a request that has arrived before the connection can count as idle.
        biased;
        start = read_start(&mut stream, &settings) => start,
        () = shutdown.graceful.cancelled() => return,
        () = slot.close_requested().cancelled() => return,
        () = sleep(REFUSAL_TIMEOUT), if slot.is_beyond_limit() => return,
    };
    let start = match start {
        Ok(Some(start)) => start,
        Ok(None) => return,
        Err(error) => return tracing::debug!(error = %error, "connection failed"),
    };
    let client_address = stream.peer_addr().ok().map(|address| ClientAddress(address.ip().to_canonical()));
    let service = ConnectionService::new(router, slot, client_address);
    let result = match start.protocol {
        Protocol::Http1 => http1::serve(stream, start, service, &settings, &shutdown).await,
        Protocol::Http2 => http2::serve(stream, start, service, &settings, &shutdown).await,
    };
    if let Err(error) = result {
        let cause = std::error::Error::source(&error).map(tracing::field::display);
        tracing::debug!(error = %error, cause, "connection failed");
    }
}
