//! HTTP/1.

use super::protocol::ConnectionStart;
use super::request_stream::{RequestStream, StreamLimits};
use super::run::run;
use super::service::ConnectionService;
use super::settings::{ConnectionSettings, ConnectionShutdown};
use super::write_timeout::WriteTimeout;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Size of hyper's buffers in bytes, unless heads may be larger.
const BUFFER_BYTES: usize = 400 * 1024;

/// Serves the requests on one connection until either side closes it.
///
/// # Errors
/// Those of the protocol and of the stream.
pub async fn serve(
    stream: TcpStream,
    start: ConnectionStart,
    mut service: ConnectionService,
    settings: &ConnectionSettings,
    shutdown: &ConnectionShutdown,
) -> hyper::Result<()> {
    let slot = Arc::clone(&service.slot);
    let limits = StreamLimits { max_head_bytes: settings.max_head_bytes, head_timeout: settings.header_timeout };
    let stream = WriteTimeout::new(stream, settings.write_timeout);
    let stream = RequestStream::new(stream, start.bytes, Arc::clone(&slot), limits);
    service.refused = stream.refused();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.keep_alive_timeout)
        .max_buf_size(settings.max_head_bytes.saturating_mul(2).max(BUFFER_BYTES))
        .keep_alive(!slot.is_beyond_limit())
        .serve_connection(TokioIo::new(stream), service);
    run(connection, &slot, shutdown).await
}
