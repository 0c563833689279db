//! HTTP/1 stream that checks the head of every request before hyper parses it, and limits the time to receive a head.
//!
//! hyper answers a head that it cannot parse without a body. Where a head is refused, hyper reads a
//! [`replacement`](head::replacement), and the router answers it with the error.

use super::chunked::ChunkedScanner;
use super::head::{self, Framing};
use super::limiter::ConnectionSlot;
use super::timer::Timer;
use crate::http::error::ApiError;
use axum::http::StatusCode;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Size of a read while a head is awaited, in bytes.
const READ_BYTES: usize = 4096;
/// Maximum time and number of bytes that are read and discarded after a refusal. Closing a connection with unread data resets it,
/// and the client may lose the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 1 << 20;

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Maximum size of a head in bytes.
    pub max_head_bytes: usize,
    /// Maximum time from the first byte of a head to its end.
    pub head_timeout: Duration,
}

/// Refused request of a connection, always its last one.
#[derive(Debug, Clone)]
pub struct RefusedRequest {
    /// Number of requests before it.
    pub index: u64,
    pub error: ApiError,
}

/// Stream of one connection.
pub struct RequestStream<S> {
    stream: S,
    slot: Arc<ConnectionSlot>,
    limits: StreamLimits,
    position: Position,
    /// Bytes that are not checked yet, the beginning of a head.
    unchecked: Vec<u8>,
    /// Length of `unchecked` that holds no end of a head.
    searched: usize,
    /// Checked bytes that hyper has not read yet.
    checked: Vec<u8>,
    /// Number of heads that hyper has received.
    requests: u64,
    refused: Arc<Mutex<Option<RefusedRequest>>>,
    head_timer: Timer,
    linger_timer: Timer,
    lingered_bytes: usize,
}

/// Part of a request that the next byte belongs to.
enum Position {
    Head,
    /// Body with this many bytes left.
    Body(u64),
    Chunked(ChunkedScanner),
    /// Behind a refused head.
    Refused,
}

impl<S> RequestStream<S> {
    /// `start` holds bytes that were read from the stream already.
    pub fn new(stream: S, start: Vec<u8>, slot: Arc<ConnectionSlot>, limits: StreamLimits) -> Self {
        Self {
            stream,
            slot,
            limits,
            position: Position::Head,
            unchecked: start,
            searched: 0,
            checked: Vec::new(),
            requests: 0,
            refused: Arc::default(),
            head_timer: Timer::new(limits.head_timeout),
            linger_timer: Timer::new(LINGER_TIMEOUT),
            lingered_bytes: 0,
        }
    }

    /// Place of the connection's refused request.
    pub fn refused(&self) -> Arc<Mutex<Option<RefusedRequest>>> {
        Arc::clone(&self.refused)
    }

    /// Checks the unchecked bytes as far as possible.
    fn check(&mut self) {
        while !self.unchecked.is_empty() {
            let length = match &mut self.position {
                Position::Head => match self.check_head() {
                    Some(length) => length,
                    None => return,
                },
                Position::Refused => return self.unchecked.clear(),
                body => body.advance(&self.unchecked),
            };
            self.checked.extend(self.unchecked.drain(..length));
        }
    }

    /// Returns the length of a complete head that is valid.
    fn check_head(&mut self) -> Option<usize> {
        if self.searched == 0 {
            // Empty lines before a request are ignored.
            let is_line_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let empty_lines = self.unchecked.iter().take_while(|byte| is_line_break(byte)).count();
            self.unchecked.drain(..empty_lines);
            if self.unchecked.is_empty() {
                return None;
            }
        }
        let limit = self.limits.max_head_bytes;
        let end = head::find_end(&self.unchecked, self.searched);
        if end.unwrap_or(self.unchecked.len()) > limit {
            self.refuse(head::too_long(&self.unchecked, limit));
            return None;
        }
        // The end is at most three bytes long.
        self.searched = self.unchecked.len().saturating_sub(3).max(1);
        let length = end?;
        self.searched = 0;
        match head::check(&self.unchecked[..length]) {
            Ok(framing) => {
                self.requests += 1;
                self.head_timer.stop();
                self.position = Position::after_head(framing);
                Some(length)
            }
            Err(error) => {
                self.refuse(error);
                None
            }
        }
    }

    /// Replaces the head, which is the last one of the connection.
    fn refuse(&mut self, error: ApiError) {
        self.checked.extend(head::replacement(&self.unchecked));
        self.unchecked.clear();
        self.head_timer.stop();
        self.position = Position::Refused;
        let refused = RefusedRequest { index: self.requests, error };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }

    /// Refuses a head that does not arrive in time. Not while a request is in flight: hyper does not await a head then.
    fn poll_head_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.unchecked.is_empty() || !self.slot.is_idle() {
            self.head_timer.stop();
            return Poll::Pending;
        }
        self.head_timer.start();
        ready!(self.head_timer.poll_elapsed(context));
        let seconds = self.limits.head_timeout.as_secs_f64();
        let detail = format!("the headers did not arrive within {seconds} seconds (--header-timeout): send them again");
        self.refuse(ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail));
        Poll::Ready(())
    }
}

impl Position {
    fn after_head(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Head,
            Framing::Length(length) => Self::Body(length),
            Framing::Chunked => Self::Chunked(ChunkedScanner::new()),
        }
    }

    /// Advances through a body; returns how many of the bytes belong to it.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Head | Self::Refused => 0,
            Self::Body(remaining) => {
                let taken = usize::try_from(*remaining).map_or(bytes.len(), |remaining| remaining.min(bytes.len()));
                *remaining -= taken as u64;
                if *remaining == 0 {
                    *self = Self::Head;
                }
                taken
            }
            Self::Chunked(scanner) => {
                let taken = scanner.advance(bytes);
                if scanner.is_end() {
                    *self = Self::Head;
                }
                taken
            }
        }
    }
}

impl<S: AsyncRead + Unpin> RequestStream<S> {
    /// Reads a part of a body into hyper's buffer, and keeps what follows the body.
    fn poll_read_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let length = self.position.advance(&buffer.filled()[start..]);
        self.unchecked.extend_from_slice(&buffer.filled()[start + length..]);
        buffer.set_filled(start + length);
        Poll::Ready(Ok(()))
    }

    /// Reads bytes of a head; returns whether the client has closed its side.
    fn poll_read_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Ready(result) => {
                result?;
                self.unchecked.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().is_empty()))
            }
            Poll::Pending => {
                ready!(self.poll_head_timeout(context));
                Poll::Ready(Ok(false))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.check();
            if !self.checked.is_empty() {
                let length = self.checked.len().min(buffer.remaining());
                buffer.put_slice(&self.checked[..length]);
                self.checked.drain(..length);
                return Poll::Ready(Ok(()));
            }
            match self.position {
                Position::Head => {
                    if ready!(self.poll_read_head(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Position::Body(_) | Position::Chunked(_) => return self.poll_read_body(context, buffer),
                // Nothing more is read; the connection ends with the response.
                Position::Refused => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RequestStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        match self.position {
            Position::Refused => self.poll_linger(context).map(Ok),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + Unpin> RequestStream<S> {
    /// Reads and discards what the client still sends.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.linger_timer.start();
        let mut bytes = [0; READ_BYTES];
        while self.lingered_bytes < MAX_LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.lingered_bytes += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.linger_timer.poll_elapsed(context),
            }
        }
        Poll::Ready(())
    }
}
