//! Limits and shutdown signals of connections.

use std::time::Duration;
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
    /// Maximum number of requests at once on an HTTP/2 connection. Default 100.
    pub max_http2_streams: u32,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            // Longer than the idle timeout of common load balancers (60 s), so that they close first.
            keep_alive_timeout: Duration::from_secs(75),
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(60),
            max_head_bytes: 64 * 1024,
            max_http2_streams: 100,
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
