//! What a tokenizer's vocabulary does not know: the unknown token, and letters of another case.

use serde_json::Value;
use std::collections::BTreeSet;
use std::iter::Sum;
use tokenizers::Tokenizer;

/// Tokens of a text, without special tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VocabularyCount {
    /// Tokens that stand for text outside of the vocabulary.
    pub unknown: usize,
    pub tokens: usize,
}

impl VocabularyCount {
    /// Share of the tokens that are unknown.
    pub fn share(self) -> f64 {
        self.unknown as f64 / self.tokens.max(1) as f64
    }
}

impl Sum for VocabularyCount {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, count| Self {
            unknown: sum.unknown + count.unknown,
            tokens: sum.tokens + count.tokens,
        })
    }
}

/// Unknown token of a vocabulary. A vocabulary of bytes has one that never occurs, or none.
pub struct UnknownToken {
    id: u32,
    special_ids: BTreeSet<u32>,
}

impl UnknownToken {
    /// From a `tokenizer.json`: `unk_token` of WordPiece, BPE and WordLevel, `unk_id` of Unigram.
    pub fn new(tokenizer_json: &Value, inner: &Tokenizer, special_ids: BTreeSet<u32>) -> Option<Self> {
        let model = &tokenizer_json["model"];
        let by_name = || inner.token_to_id(model["unk_token"].as_str()?);
        let id = model["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok()).or_else(by_name)?;
        Some(Self { id, special_ids })
    }

    pub fn count(&self, ids: &[u32]) -> VocabularyCount {
        let unknown = ids.iter().filter(|id| **id == self.id).count();
        let known = ids.iter().filter(|id| **id != self.id && !self.special_ids.contains(id)).count();
        VocabularyCount { unknown, tokens: unknown + known }
    }
}

/// Letters of the genetic code's amino acids.
const AMINO_ACIDS: &str = "ACDEFGHIKLMNPQRSTVWY";

/// Whether the vocabulary has a token for each amino acid and none with a lower-case letter, as that of a protein base.
pub fn has_upper_case_residues_only(inner: &Tokenizer, special_ids: &BTreeSet<u32>) -> bool {
    let vocabulary = inner.get_vocab(true);
    let is_lower_case = |(token, id): (&String, &u32)| {
        !special_ids.contains(id) && !token.starts_with('<') && token.chars().any(char::is_lowercase)
    };
    AMINO_ACIDS.chars().all(|letter| vocabulary.contains_key(letter.to_string().as_str()))
        && !vocabulary.iter().any(is_lower_case)
}

/// Upper-cases the ASCII letters of a text outside of `<…>`, which may be a special token. Offsets do not change.
pub fn upper_case_residues(text: &str) -> String {
    let mut is_in_tag = false;
    let upper_case = |letter: char| {
        is_in_tag = letter == '<' || is_in_tag && letter != '>';
        if is_in_tag { letter } else { letter.to_ascii_uppercase() }
    };
    text.chars().map(upper_case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residues_are_upper_cased_and_special_tokens_are_kept() {
        assert_eq!(upper_case_residues("mtPl<mask>é ka"), "MTPL<mask>é KA");
    }

    #[test]
    fn shares_are_those_of_the_text_alone() {
        let unknown = UnknownToken { id: 1, special_ids: [0, 1, 2].into() };
        assert_eq!(unknown.count(&[0, 1, 7, 8, 1, 2]), VocabularyCount { unknown: 2, tokens: 4 });
        assert_eq!(unknown.count(&[0, 2]).share(), 0.0);
    }
}
