//! Stop conditions, and the search for stop sequences in a stream of text chunks.

/// When a sequence ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopConditions {
    /// Not empty strings.
    pub stop_sequences: Vec<String>,
    pub stop_output: StopOutput,
    pub stop_token_ids: Vec<u32>,
    /// With 0 only the prompt is computed.
    pub max_tokens: u32,
}

/// Whether the output contains the stop sequence, or the text of the stop token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopOutput {
    #[default]
    Exclude,
    Include,
}

impl StopOutput {
    /// vLLM's `include_stop_str_in_output`.
    pub fn from_option(is_included: Option<bool>) -> Self {
        if is_included == Some(true) { Self::Include } else { Self::Exclude }
    }
}

/// Text that is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Continue(String),
    /// The last text: a stop sequence was found.
    Stop(String),
}

/// Finds the stop sequence that is complete first; of those that are complete at the same position, the longest.
#[derive(Debug, Clone)]
pub struct StopSequenceMatcher {
    stop_sequences: Vec<String>,
    stop_output: StopOutput,
    /// Text that may be the beginning of a stop sequence.
    pending: String,
}

impl StopSequenceMatcher {
    /// Ignores empty stop sequences; requests with them are refused earlier.
    pub fn new(stop_sequences: Vec<String>, stop_output: StopOutput) -> Self {
        let stop_sequences = stop_sequences.into_iter().filter(|stop_sequence| !stop_sequence.is_empty()).collect();
        Self { stop_sequences, stop_output, pending: String::new() }
    }

    /// Appends a chunk and returns the text that is final with it.
    pub fn push(&mut self, text: &str) -> Match {
        if self.stop_sequences.is_empty() {
            return Match::Continue(text.to_string());
        }
        self.pending.push_str(text);
        if let Some((start, end)) = self.find_first() {
            let mut text = std::mem::take(&mut self.pending);
            text.truncate(match self.stop_output {
                StopOutput::Exclude => start,
                StopOutput::Include => end,
            });
            return Match::Stop(text);
        }
        let withheld = self.pending.split_off(self.unambiguous_length());
        Match::Continue(std::mem::replace(&mut self.pending, withheld))
    }

    /// Returns the withheld text, which did not become a stop sequence.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }

    /// Start and end of the first stop sequence.
    fn find_first(&self) -> Option<(usize, usize)> {
        let find = |stop: &String| self.pending.find(stop).map(|start| (start, start + stop.len()));
        self.stop_sequences.iter().filter_map(find).min_by_key(|(start, end)| (*end, *start))
    }

    /// Number of bytes before the first position at which a stop sequence may begin.
    fn unambiguous_length(&self) -> usize {
        let longest = self.stop_sequences.iter().map(String::len).max().unwrap_or_default();
        let start = (self.pending.len() + 1).saturating_sub(longest);
        let may_begin_stop = |start: &usize| {
            let suffix = self.pending.get(*start..);
            suffix.is_some_and(|end| self.stop_sequences.iter().any(|stop| stop.starts_with(end)))
        };
        (start..self.pending.len()).find(may_begin_stop).unwrap_or(self.pending.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(stop_sequences: &[&str], stop_output: StopOutput) -> StopSequenceMatcher {
        StopSequenceMatcher::new(stop_sequences.iter().map(ToString::to_string).collect(), stop_output)
    }

    /// All output, and whether a stop sequence ended it.
    fn run(mut matcher: StopSequenceMatcher, chunks: &[&str]) -> (String, &'static str) {
        let mut all = String::new();
        for chunk in chunks {
            match matcher.push(chunk) {
                Match::Continue(text) => all += &text,
                Match::Stop(text) => return (all + &text, "stopped"),
            }
        }
        (all + &matcher.flush(), "ran")
    }

    #[test]
    fn a_stop_sequence_is_found_however_the_text_is_chunked() {
        let cases: [(&[&str], &str, &str, &str, &str); 9] = [
            (&["aab"], "aaab!", "a", "aaab", "stopped"),
            (&["abab"], "ababab", "", "abab", "stopped"),
            (&["\n\n", "END"], "one\ntwo EN\n\nEND", "one\ntwo EN", "one\ntwo EN\n\n", "stopped"),
            // complete first, though the other begins earlier
            (&["abcd", "bc"], "xabcd", "xa", "xabc", "stopped"),
            // complete at the same position: the longest
            (&["bc", "abc"], "xabc", "x", "xabc", "stopped"),
            (&["é€"], "aé é€b", "aé ", "aé é€", "stopped"),
            (&["stop"], "sto stopp", "sto ", "sto stop", "stopped"),
            (&["stop"], "sto sto", "sto sto", "sto sto", "ran"),
            (&[""], "all of it", "all of it", "all of it", "ran"),
        ];
        for (strings, text, excluded, included, end) in cases {
            let boundaries: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            for (one, other) in boundaries.iter().flat_map(|one| boundaries.iter().map(move |other| (*one, *other))) {
                let (one, other) = (one.min(other), one.max(other));
                let chunks = [&text[..one], &text[one..other], &text[other..]];
                assert_eq!(
                    run(matcher(strings, StopOutput::Exclude), &chunks),
                    (excluded.to_string(), end),
                    "{chunks:?}"
                );
                assert_eq!(
                    run(matcher(strings, StopOutput::Include), &chunks),
                    (included.to_string(), end),
                    "{chunks:?}"
                );
            }
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
            assert_eq!(run(matcher(strings, StopOutput::Exclude), &characters), (excluded.to_string(), end));
        }
    }

    #[test]
    fn only_a_possible_stop_sequence_prefix_is_withheld() {
        let mut matcher = matcher(&["aab", "ba"], StopOutput::Exclude);
        let steps = [("x", "x"), ("a", ""), ("a", ""), ("a", "a"), ("c", "aac"), ("b", ""), ("é", "bé")];
        for (chunk, out) in steps {
            assert_eq!(matcher.push(chunk), Match::Continue(out.to_string()), "{chunk}");
        }
    }
}
