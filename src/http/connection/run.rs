//! Runs a connection and closes it: by its client, at the shutdown of the server, or in favour of another.

use super::limiter::ConnectionSlot;
use super::settings::ConnectionShutdown;
use hyper_util::server::graceful::GracefulConnection;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::time::sleep;

/// Maximum time for the one request on a connection beyond the limit.
pub const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a connection until either side closes it.
pub async fn run<C: GracefulConnection>(
    connection: C,
    slot: &ConnectionSlot,
    shutdown: &ConnectionShutdown,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    tokio::select! {
        // Reads a request that has arrived before the connection can count as idle.
        biased;
        ended = connection.as_mut() => ended,
        () = shutdown.graceful.cancelled() => finish(connection, shutdown).await,
        () = slot.close_requested().cancelled() => match slot.is_idle() {
            true => Ok(()),
            // A request arrived at the same time.
            false => finish(connection, shutdown).await,
        },
        () = sleep(REFUSAL_TIMEOUT), if slot.is_beyond_limit() => Ok(()),
    }
}

/// Closes the connection after the requests in flight.
async fn finish<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    shutdown: &ConnectionShutdown,
) -> Result<(), C::Error> {
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = shutdown.immediate.cancelled() => Ok(()),
    }
}
