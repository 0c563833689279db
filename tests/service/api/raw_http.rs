//! HTTP client on raw connections, which reports how each request ended on which connection.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

/// Outcome of a request.
#[derive(Debug)]
pub enum RequestOutcome {
    /// Complete response.
    Response { status: u16, body: String },
    /// The listener is closed.
    ConnectionRefused,
    /// The request was sent, but no complete response arrived.
    Aborted { reason: String, on: Connection },
}

#[derive(Debug, PartialEq, Eq)]
pub enum Connection {
    New,
    /// The connection had carried a request before.
    Reused,
}

pub struct RawHttpClient {
    address: String,
    connection: Option<BufReader<TcpStream>>,
}

impl RawHttpClient {
    /// Client of the server at `url`.
    pub fn new(url: &str) -> Self {
        Self { address: url.trim_start_matches("http://").trim_end_matches('/').to_string(), connection: None }
    }

    /// Sends text on the open connection, or on a new one.
    pub fn send(&mut self, request: &str) -> io::Result<()> {
        if self.connection.is_none() {
            self.connection = Some(BufReader::new(TcpStream::connect(&self.address)?));
        }
        let connection = self.connection.as_mut().unwrap();
        connection.get_mut().write_all(request.as_bytes())
    }

    pub fn post(&mut self, path: &str, id: &str, body: &str) -> RequestOutcome {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {id}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.send_and_read(&format!("{head}{body}"))
    }

    pub fn get(&mut self, path: &str, id: &str) -> RequestOutcome {
        self.send_and_read(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {id}\r\n\r\n"))
    }

    /// Sends the rest of a request on the open connection.
    pub fn finish(&mut self, rest: &str) -> RequestOutcome {
        self.send_and_read(rest)
    }

    fn send_and_read(&mut self, request: &str) -> RequestOutcome {
        let on = if self.connection.is_some() { Connection::Reused } else { Connection::New };
        match self.send(request).and_then(|()| self.read_response()) {
            Ok((status, body)) => RequestOutcome::Response { status, body },
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => RequestOutcome::ConnectionRefused,
            Err(error) => {
                self.connection = None;
                RequestOutcome::Aborted { reason: error.to_string(), on }
            }
        }
    }

    /// Closes the connection; the next request opens a new one.
    pub fn close(&mut self) {
        self.connection = None;
    }

    fn read_response(&mut self) -> io::Result<(u16, String)> {
        let connection = self.connection.as_mut().unwrap();
        let status = read_line(connection)?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        let (mut length, mut closes) = (0, false);
        loop {
            let header = read_line(connection)?.to_ascii_lowercase();
            match header.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse().map_err(|_| ErrorKind::InvalidData)?,
                Some(("connection", "close")) => closes = true,
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        if closes {
            self.connection = None;
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match connection.read_line(&mut line)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_string()),
    }
}
