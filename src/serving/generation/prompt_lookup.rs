//! Speculative decoding without a second model: the tokens that followed an earlier occurrence of the last tokens are a draft, and one
//! forward pass verifies it (prompt lookup decoding, Saxena 2023; speculative decoding, Leviathan et al. 2023).
//!
//! The step samples every token as it would without a draft, and keeps a drafted token only if it is the sampled one, so the text is the
//! same. A wrong draft costs time: the next draft is longer after a right one, and there is none for some steps after a wrong one.

/// Tokens that have to match before a draft, and those that are compared at most.
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 8;
/// Tokens of the first draft.
const FIRST_LENGTH: usize = 3;
/// Number of steps without a draft after a wrong draft. It doubles with each wrong draft, up to the maximum.
const FIRST_PAUSE: u32 = 2;
const MAX_PAUSE: u32 = 64;

/// Drafts for one sequence.
#[derive(Debug)]
pub struct PromptLookup {
    /// Tokens of the next draft, at most.
    length: usize,
    /// Steps until the next draft.
    pause: u32,
    /// Pause after the next wrong draft.
    next_pause: u32,
}

impl Default for PromptLookup {
    fn default() -> Self {
        Self { length: FIRST_LENGTH, pause: 0, next_pause: FIRST_PAUSE }
    }
}

impl PromptLookup {
    /// The draft for the step after `tokens`, at most `limit` tokens; empty where none is likely to be right.
    pub fn draft(&mut self, tokens: &[u32], limit: usize) -> Vec<u32> {
        if self.pause > 0 {
            self.pause -= 1;
            return Vec::new();
        }
        if limit == 0 {
            return Vec::new();
        }
        let continuation = find_continuation(tokens).unwrap_or_default();
        continuation.iter().take(self.length.min(limit)).copied().collect()
    }

    /// Records that the first `accepted` tokens of a draft of `drafted` were generated.
    pub fn record(&mut self, drafted: usize, accepted: usize) {
        if drafted == 0 {
            return;
        }
        if accepted == 0 {
            (self.length, self.pause) = (FIRST_LENGTH, self.next_pause);
            self.next_pause = (2 * self.next_pause).min(MAX_PAUSE);
            return;
        }
        self.next_pause = FIRST_PAUSE;
        self.length = if accepted == drafted { 2 * self.length.max(drafted) } else { accepted + 1 };
    }
}

/// Returns the tokens after the longest earlier match of the last tokens; of matches of equal length, after the latest.
fn find_continuation(tokens: &[u32]) -> Option<&[u32]> {
    let last = tokens.last()?;
    let (mut longest, mut start) = (MIN_MATCH - 1, None);
    for end in (1..tokens.len()).rev().filter(|end| tokens[end - 1] == *last) {
        let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev()).take(MAX_MATCH);
        let length = pairs.take_while(|(earlier, later)| earlier == later).count();
        if length > longest {
            (longest, start) = (length, Some(end));
        }
        if length == MAX_MATCH {
            break;
        }
    }
    start.map(|start| &tokens[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_continues_the_longest_and_then_the_latest_match() {
        assert_eq!(find_continuation(&[1, 2, 3, 9, 1, 2, 3]), Some(&[9, 1, 2, 3][..]));
        assert_eq!(find_continuation(&[1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 3]), Some(&[9, 1, 2, 3][..]));
        assert_eq!(find_continuation(&[7, 1, 2, 3, 8, 1, 2, 3, 9, 7, 1, 2, 3]).map(|draft| draft[0]), Some(8));
        assert_eq!(find_continuation(&[4, 4, 4, 4, 4]), Some(&[4][..]));
        for tokens in [&[][..], &[1], &[1, 2, 9, 1, 2], &[1, 2, 3, 4, 5]] {
            assert_eq!(find_continuation(tokens), None);
        }
    }

    #[test]
    fn drafts_grow_while_they_are_right_and_pause_while_they_are_wrong() {
        let tokens: Vec<u32> = (0..50).chain(0..10).collect();
        let mut lookup = PromptLookup::default();
        for length in [3, 6, 12, 16, 16] {
            let draft = lookup.draft(&tokens, 16);
            assert_eq!(draft, (10..10 + length).collect::<Vec<u32>>());
            lookup.record(draft.len(), draft.len());
        }
        lookup.record(16, 2);
        assert_eq!(lookup.draft(&tokens, 16).len(), 3);
        for pause in [2, 4, 8, 16, 32, 64, 64] {
            lookup.record(3, 0);
            assert!((0..pause).all(|_| lookup.draft(&tokens, 16).is_empty()));
            assert_eq!(lookup.draft(&tokens, 16).len(), 3);
        }
        assert_eq!(lookup.draft(&tokens, 1).len(), 1);
        assert!(lookup.draft(&tokens, 0).is_empty());
        lookup.record(0, 0);
        assert_eq!(lookup.draft(&tokens, 16).len(), 3, "a step without a draft says nothing");
    }
}
