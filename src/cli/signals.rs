//! SIGTERM and SIGINT: the first asks to stop, the second ends the process at once.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// From now on neither signal ends the process by itself.
///
/// # Errors
/// Where the operating system refuses a handler.
pub fn install_handlers() -> io::Result<Signals> {
    Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
}

impl Signals {
    /// The next signal's name.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Whoever asks twice does not want to wait: what is lost is taken up again at the next start.
    pub fn exit_on_next(mut self) {
        tokio::spawn(async move {
            let signal = self.recv().await;
            tracing::warn!(signal, "ended at once");
            #[allow(clippy::exit, clippy::disallowed_methods, reason = "to end at once is what was asked for")]
            std::process::exit(1);
        });
    }
}
