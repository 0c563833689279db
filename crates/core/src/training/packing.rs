//! Texts of any length become examples of about the same: neighbours fill one together, and a long text goes on in the next.
//!
//! Each text stays a sequence of its own, that sees no other. Knows nothing of what is learned.

use crate::model::Tokens;
use crate::task::Example;
use std::sync::Arc;

/// In their order; an example has at most `most` tokens, and stands for the text that it begins with.
pub fn pack_sequences(
    examples: Vec<(&Example, Vec<Arc<Tokens>>)>,
    max_length: usize,
) -> Vec<(&Example, Vec<Arc<Tokens>>)> {
    let mut packs: Vec<(&Example, Vec<Arc<Tokens>>)> = Vec::new();
    let mut token_count = 0;
    for (example, sequences) in examples {
        for sequence in sequences {
            let length = sequence.ids.len();
            match packs.last_mut() {
                Some((_, pack)) if token_count + length <= max_length => pack.push(sequence),
                _ => {
                    packs.push((example, vec![sequence]));
                    token_count = 0;
                }
            }
            token_count += length;
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Target;

    #[test]
    fn short_texts_are_packed_together_and_a_long_text_spans_several_examples() {
        let example = |line| Example { line, text: String::new(), text_pair: None, target: Target::Text };
        let sequence = |length| Arc::new(Tokens::from_ids(vec![1; length]));
        let examples = [example(1), example(2), example(3)];
        let sequences = [vec![sequence(3)], vec![sequence(2)], vec![sequence(10), sequence(4)]];
        let packed = pack_sequences(examples.iter().zip(sequences).collect(), 10);
        let shape: Vec<(u64, usize)> = packed.iter().map(|(example, pack)| (example.line, pack.len())).collect();
        assert_eq!(shape, [(1, 2), (3, 1), (3, 1)]);
    }
}
