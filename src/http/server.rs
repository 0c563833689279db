//! Listens, and stops without losing a request.
//!
//! Knows nothing of what is answered.

use crate::error::{Context, Result};
use axum::Router;
use axum::serve::ListenerExt;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown` is cancelled. Then no connection is accepted any more, streams end by themselves (they see
/// the same token), and requests under way have `grace` to finish.
///
/// # Errors
/// `Internal` where the listener fails.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, grace: Duration) -> Result<()> {
    let listener = listener.tap_io(|connection| {
        // answers are small and written at once: waiting for more to send would only delay them
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(error = %error, "connection keeps its delay");
        }
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        served = serving => served.context("serving"),
        () = late => {
            tracing::warn!(grace_seconds = grace.as_secs_f64(), "requests were cut off");
            Ok(())
        }
    }
}
