//! Parser of server-sent events (WHATWG HTML, section 9.2).

use std::io::{self, BufRead, BufReader, Read};

/// Maximum length of a line, which bounds memory.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Last id that the stream sent; the value of `Last-Event-ID` when reconnecting.
    pub id: Option<String>,
    /// Event type; `message` by default.
    pub event_type: String,
    pub data: String,
}

/// Iterator over the events of a stream. An incomplete event at the end is dropped, as the standard requires.
pub struct EventStream<R> {
    reader: BufReader<R>,
    last_event_id: Option<String>,
}

impl<R: Read> EventStream<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), last_event_id: None }
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let count = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if count as u64 == MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the event stream is too long"));
        }
        if line.pop() != Some(b'\n') {
            return Ok(None);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    fn read_event(&mut self) -> io::Result<Option<Event>> {
        let (mut kind, mut data) = (String::new(), Vec::new());
        while let Some(line) = self.read_line()? {
            if line.is_empty() {
                if !data.is_empty() {
                    let kind = if kind.is_empty() { "message".to_string() } else { kind };
                    return Ok(Some(Event { id: self.last_event_id.clone(), event_type: kind, data: data.join("\n") }));
                }
                kind.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => kind = value.to_string(),
                "data" => data.push(value.to_string()),
                "id" if !value.contains('\0') => self.last_event_id = Some(value.to_string()),
                _ => {} // comments (an empty field), `retry` and unknown fields
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for EventStream<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Event> {
        EventStream::new(text.as_bytes()).map(Result::unwrap).collect()
    }

    fn new_event(id: Option<&str>, kind: &str, data: &str) -> Event {
        Event { id: id.map(str::to_string), event_type: kind.to_string(), data: data.to_string() }
    }

    #[test]
    fn events_have_an_id_a_type_and_data() {
        let text = "id: 1\nevent: status\ndata: {\"status\": \"queued\"}\n\ndata: a\r\ndata:b\r\n\r\n";
        let expected =
            [new_event(Some("1"), "status", "{\"status\": \"queued\"}"), new_event(Some("1"), "message", "a\nb")];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn comments_and_unknown_fields_are_ignored() {
        assert_eq!(parse(": alive\n\nretry: 10\ncolour: red\ndata\n\nevent: x\n\n"), [new_event(None, "message", "")]);
    }

    #[test]
    fn truncated_event_is_dropped() {
        assert_eq!(parse("data: whole\n\nid: 2\ndata: half\n"), [new_event(None, "message", "whole")]);
        assert_eq!(parse("data: half"), []);
    }
}
