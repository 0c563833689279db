//! Finds the end of a JSON object in a text that grows.

/// Scanner of one object, which the text begins with.
#[derive(Debug, Clone, Default)]
pub struct JsonObjectScanner {
    /// Bytes of the text that were scanned.
    scanned: usize,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

/// Result of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// The text ends inside the object.
    Inside,
    /// The object ends before this byte.
    End(usize),
    /// The character at this byte is no part of any JSON.
    Broken(usize),
}

impl JsonObjectScanner {
    /// Scans the text after what was scanned before.
    pub fn advance(&mut self, text: &str) -> Scan {
        for (at, character) in text[self.scanned..].char_indices() {
            let end = self.scanned + at + character.len_utf8();
            match character {
                _ if self.is_escaped => self.is_escaped = false,
                '\\' if self.is_in_string => self.is_escaped = true,
                '"' => self.is_in_string = !self.is_in_string,
                _ if self.is_in_string => {}
                '{' | '[' => self.depth += 1,
                '}' | ']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Scan::End(end);
                    }
                }
                ',' | ':' | '+' | '-' | '.' | '0'..='9' | 'a'..='z' | 'E' | ' ' | '\n' | '\r' | '\t' => {}
                _ => return Scan::Broken(self.scanned + at),
            }
        }
        self.scanned = text.len();
        Scan::Inside
    }

    /// The scanner of the text without its first bytes, which were scanned.
    pub fn with_drained(self, bytes: usize) -> Self {
        Self { scanned: self.scanned.saturating_sub(bytes), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_object_is_found_at_every_cut() {
        let object = r#"{"a": {"b": ["}\"\\", 1e3, true]}, "é": "{["}"#;
        let text = format!("{object} }}");
        for cut in (0..=object.len()).filter(|at| text.is_char_boundary(*at)) {
            let mut scanner = JsonObjectScanner::default();
            let expected = if cut == object.len() { Scan::End(cut) } else { Scan::Inside };
            assert_eq!(scanner.advance(&text[..cut]), expected, "{cut}");
            if expected == Scan::Inside {
                assert_eq!(scanner.advance(&text), Scan::End(object.len()), "{cut}");
            }
        }
        assert_eq!(JsonObjectScanner::default().advance(r#"{"a": <"#), Scan::Broken(6));
    }
}
