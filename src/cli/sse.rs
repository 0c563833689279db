//! Server-sent events (WHATWG HTML, section 9.2) from any reader. Knows nothing of jobs or of the network.

use std::io::{self, BufRead, BufReader, Read};

/// A longer line is not one of ours, and would fill the memory.
const MAX_LINE: u64 = 16 << 20;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The last id that the stream named so far: what `Last-Event-ID` goes on from.
    pub id: Option<String>,
    /// `message` where the stream does not say.
    pub kind: String,
    pub data: String,
}

/// The events of a stream, until it ends or breaks. An event that is cut off by the end is dropped, as the standard says.
pub struct Events<R> {
    reader: BufReader<R>,
    id: Option<String>,
}

impl<R: Read> Events<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), id: None }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let count = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if count as u64 == MAX_LINE {
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

    fn event(&mut self) -> io::Result<Option<Event>> {
        let (mut kind, mut data) = (String::new(), Vec::new());
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if !data.is_empty() {
                    let kind = if kind.is_empty() { "message".to_string() } else { kind };
                    return Ok(Some(Event { id: self.id.clone(), kind, data: data.join("\n") }));
                }
                kind.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => kind = value.to_string(),
                "data" => data.push(value.to_string()),
                "id" if !value.contains('\0') => self.id = Some(value.to_string()),
                _ => {} // comments (an empty field), `retry`, and whatever a later server adds
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Event> {
        Events::new(text.as_bytes()).map(Result::unwrap).collect()
    }

    fn event(id: Option<&str>, kind: &str, data: &str) -> Event {
        Event { id: id.map(str::to_string), kind: kind.to_string(), data: data.to_string() }
    }

    #[test]
    fn events_have_an_id_a_kind_and_data() {
        let text = "id: 1\nevent: status\ndata: {\"status\": \"queued\"}\n\ndata: a\r\ndata:b\r\n\r\n";
        let expected = [event(Some("1"), "status", "{\"status\": \"queued\"}"), event(Some("1"), "message", "a\nb")];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn comments_and_unknown_fields_are_passed_over() {
        assert_eq!(read(": alive\n\nretry: 10\ncolour: red\ndata\n\nevent: x\n\n"), [event(None, "message", "")]);
    }

    #[test]
    fn an_event_that_is_cut_off_is_dropped() {
        assert_eq!(read("data: whole\n\nid: 2\ndata: half\n"), [event(None, "message", "whole")]);
        assert_eq!(read("data: half"), []);
    }
}
