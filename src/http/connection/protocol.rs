//! Tells HTTP/1 and HTTP/2 apart by the first bytes of a connection.

use super::settings::ConnectionSettings;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// First bytes of an HTTP/2 connection without TLS (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Size of the first read, in bytes.
const READ_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Protocol of a connection, and the bytes that were read to tell it.
#[derive(Debug, PartialEq, Eq)]
pub struct ConnectionStart {
    pub protocol: Protocol,
    pub bytes: Vec<u8>,
}

/// Reads until the protocol is known; `None` if the client closes the connection or sends nothing for the keep-alive timeout. A part
/// of the preface that does not go on within the header timeout is read as HTTP/1.
///
/// # Errors
/// Those of the stream.
pub async fn read_start(
    stream: &mut (impl AsyncRead + Unpin),
    settings: &ConnectionSettings,
) -> io::Result<Option<ConnectionStart>> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    match timeout(settings.keep_alive_timeout, stream.read_buf(&mut bytes)).await {
        Ok(Ok(1..)) => {}
        Ok(result) => return result.map(|_| None),
        Err(_) => return Ok(None),
    }
    let read_preface = async {
        while PREFACE.starts_with(&bytes) && bytes.len() < PREFACE.len() && stream.read_buf(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(result) = timeout(settings.header_timeout, read_preface).await {
        result?;
    }
    let protocol = if bytes.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Some(ConnectionStart { protocol, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;

    /// Start of a connection on which these parts arrive.
    async fn start_of(parts: &[&str], is_closed: bool) -> Option<ConnectionStart> {
        let (mut client, mut server) = tokio::io::duplex(1);
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let sending = tokio::spawn(async move {
            for part in parts {
                client.write_all(part.as_bytes()).await.unwrap();
            }
            if !is_closed {
                std::future::pending::<()>().await;
            }
        });
        let short = Duration::from_millis(20);
        let settings =
            ConnectionSettings { keep_alive_timeout: short, header_timeout: short, ..ConnectionSettings::default() };
        let start = read_start(&mut server, &settings).await.unwrap();
        sending.abort();
        start
    }

    #[tokio::test]
    async fn preface_tells_the_protocol_however_it_arrives() {
        let preface = std::str::from_utf8(PREFACE).unwrap();
        let start = start_of(&[&preface[..1], &preface[1..]], false).await.unwrap();
        assert_eq!((start.protocol, start.bytes.as_slice()), (Protocol::Http2, PREFACE));
        for (text, is_closed) in [("GET /", false), ("POST / HTTP/1.1", false), ("PR", false), ("PRI * HTTP/2.0", true)]
        {
            let start = start_of(&[text], is_closed).await.unwrap();
            assert_eq!(start.protocol, Protocol::Http1, "{text}");
            assert!(text.as_bytes().starts_with(&start.bytes) && !start.bytes.is_empty(), "{text}");
        }
    }

    #[tokio::test]
    async fn silent_connection_has_no_start() {
        assert_eq!(start_of(&[], false).await, None);
        assert_eq!(start_of(&[], true).await, None);
    }
}
