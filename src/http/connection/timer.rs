//! Timer of a time limit that starts again and again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Timer that is started and stopped for every request; its allocation is reused.
pub struct Timer {
    timeout: Duration,
    is_running: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, is_running: false, sleep: None }
    }

    /// Starts the timer if it is not running.
    pub fn start(&mut self) {
        if self.is_running {
            return;
        }
        self.is_running = true;
        let deadline = Instant::now() + self.timeout;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.sleep = Some(Box::pin(sleep_until(deadline))),
        }
    }

    pub fn stop(&mut self) {
        self.is_running = false;
    }

    /// Ready when the running timer has elapsed.
    pub fn poll_elapsed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) if self.is_running => sleep.as_mut().poll(context),
            _ => Poll::Pending,
        }
    }
}
