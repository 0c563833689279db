//! Stop strings in a stream of text, however it is cut into pieces: the first to be complete stops it, of those that
//! are complete at the same place the longest.
//!
//! Knows nothing of tokens.

use super::StopText;

/// Text that may be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    Runs(String),
    /// The last text: a stop string came.
    Stops(String),
}

#[derive(Debug, Clone)]
pub struct Stops {
    stops: Vec<String>,
    stop_text: StopText,
    /// What may be the beginning of a stop string.
    held: String,
}

impl Stops {
    /// Empty stop strings are refused where requests are read; here they stop nothing.
    pub fn new(stops: Vec<String>, stop_text: StopText) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, stop_text, held: String::new() }
    }

    pub fn push(&mut self, text: &str) -> Flow {
        if self.stops.is_empty() {
            return Flow::Runs(text.to_string());
        }
        self.held.push_str(text);
        if let Some((start, end)) = self.first() {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(match self.stop_text {
                StopText::Cut => start,
                StopText::Keep => end,
            });
            return Flow::Stops(text);
        }
        let kept = self.held.split_off(self.sure());
        Flow::Runs(std::mem::replace(&mut self.held, kept))
    }

    /// What was held back: no stop string came of it.
    pub fn end(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the first stop string begins and ends.
    fn first(&self) -> Option<(usize, usize)> {
        let found = |stop: &String| self.held.find(stop).map(|start| (start, start + stop.len()));
        self.stops.iter().filter_map(found).min_by_key(|(start, end)| (*end, *start))
    }

    /// Bytes before anything that may become a stop string.
    fn sure(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or_default();
        let first = (self.held.len() + 1).saturating_sub(longest);
        let begins = |start: &usize| {
            let end = self.held.get(*start..);
            end.is_some_and(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
        };
        (first..self.held.len()).find(begins).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(stops: &[&str], stop_text: StopText) -> Stops {
        Stops::new(stops.iter().map(ToString::to_string).collect(), stop_text)
    }

    /// All that is handed out, and whether it was stopped.
    fn written(mut stops: Stops, pieces: &[&str]) -> (String, &'static str) {
        let mut all = String::new();
        for piece in pieces {
            match stops.push(piece) {
                Flow::Runs(text) => all += &text,
                Flow::Stops(text) => return (all + &text, "stopped"),
            }
        }
        (all + &stops.end(), "ran")
    }

    #[test]
    fn a_stop_string_is_found_wherever_the_text_is_cut() {
        let cases: [(&[&str], &str, &str, &str, &str); 9] = [
            (&["aab"], "aaab!", "a", "aaab", "stopped"),
            (&["abab"], "ababab", "", "abab", "stopped"),
            (&["\n\n", "END"], "one\ntwo EN\n\nEND", "one\ntwo EN", "one\ntwo EN\n\n", "stopped"),
            // the one that is complete first, though the other began before
            (&["abcd", "bc"], "xabcd", "xa", "xabc", "stopped"),
            // complete at the same place: the longest
            (&["bc", "abc"], "xabc", "x", "xabc", "stopped"),
            (&["é€"], "aé é€b", "aé ", "aé é€", "stopped"),
            (&["stop"], "sto stopp", "sto ", "sto stop", "stopped"),
            (&["stop"], "sto sto", "sto sto", "sto sto", "ran"),
            (&[""], "all of it", "all of it", "all of it", "ran"),
        ];
        for (strings, text, cut, kept, end) in cases {
            let places: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            for (one, other) in places.iter().flat_map(|one| places.iter().map(move |other| (*one, *other))) {
                let (one, other) = (one.min(other), one.max(other));
                let pieces = [&text[..one], &text[one..other], &text[other..]];
                assert_eq!(written(stops(strings, StopText::Cut), &pieces), (cut.to_string(), end), "{pieces:?}");
                assert_eq!(written(stops(strings, StopText::Keep), &pieces), (kept.to_string(), end), "{pieces:?}");
            }
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
            assert_eq!(written(stops(strings, StopText::Cut), &characters), (cut.to_string(), end));
        }
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held() {
        let mut stops = stops(&["aab", "ba"], StopText::Cut);
        let steps = [("x", "x"), ("a", ""), ("a", ""), ("a", "a"), ("c", "aac"), ("b", ""), ("é", "bé")];
        for (piece, out) in steps {
            assert_eq!(stops.push(piece), Flow::Runs(out.to_string()), "{piece}");
        }
    }
}
