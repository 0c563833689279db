//! Masked language modelling: the words behind masks (Devlin et al. 2019). An adapter learns how a domain writes, from plain
//! texts; other jobs may start from it.

use crate::error::FieldError;
use crate::model::{MlmVocabulary, Tokens};
use espalier_tensor::seeded_rng::SeededRng;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = MaskedLanguageModel)]
pub struct Config {
    /// The share of a text's tokens that are to be found again, drawn anew in every epoch. Of them 80 % are masked, 10 %
    /// replaced by any word, and 10 % left.
    #[schema(minimum = 0.01, maximum = 0.5)]
    pub mask_probability: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { mask_probability: 0.15 }
    }
}

/// Words for each mask of a text, in order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Fills)]
pub struct Prediction {
    pub fills: Vec<Vec<Fill>>,
}

/// The most probable first.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Fill {
    pub token: String,
    pub score: f32,
}

impl Config {
    pub fn validate(&self) -> Vec<FieldError> {
        match (0.01..=0.5).contains(&self.mask_probability) {
            true => Vec::new(),
            false => {
                vec![FieldError::at_pointer("/task/mask_probability", "mask_probability must be between 0.01 and 0.5")]
            }
        }
    }

    /// How many tokens of a text are to be found: always one at least.
    pub fn mask_count(&self, tokens: &Tokens, masking: &MlmVocabulary) -> usize {
        let maskable = masking.maskable_positions(tokens).len();
        ((maskable as f64 * self.mask_probability).round() as usize).max(1).min(maskable)
    }

    /// The text with some of its tokens hidden, and which they were.
    pub fn mask(&self, tokens: &Tokens, masking: &MlmVocabulary, mut random: SeededRng) -> (Tokens, Vec<u32>) {
        let mut positions = masking.maskable_positions(tokens);
        random.shuffle(&mut positions);
        positions.truncate(self.mask_count(tokens, masking));
        positions.sort_unstable();
        let original_ids = positions.iter().map(|row| tokens.ids[*row as usize]).collect();
        let mut ids = tokens.ids.clone();
        for row in &positions {
            match random.uniform_below(10) {
                0..8 => ids[*row as usize] = masking.mask_id,
                8 => ids[*row as usize] = masking.replacement_id(random.uniform_below(masking.replacement_count())),
                _ => {}
            }
        }
        (Tokens { ids, target_positions: positions, ..tokens.clone() }, original_ids)
    }
}

/// Words that are told of a mask at most: the rest of a vocabulary is forgotten where it was computed.
pub const MAX_FILLS: usize = 100;

/// The likeliest words of a row of logits, the first first: of each its id and its probability, end to end.
pub fn top_tokens(logits: &[f32]) -> Vec<f32> {
    let probabilities = super::calibration::softmax(logits, 1.0);
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_probability = |one: &u32, other: &u32| {
        probabilities[*other as usize].total_cmp(&probabilities[*one as usize]).then(one.cmp(other))
    };
    let fill_count = fill_count(logits.len());
    order.select_nth_unstable_by(fill_count - 1, by_probability);
    order.truncate(fill_count);
    order.sort_unstable_by(by_probability);
    // A number of 24 bits is a whole one as f32: no vocabulary is larger.
    order.iter().flat_map(|id| [*id as f32, probabilities[*id as usize] as f32]).collect()
}

/// Words that are told of a mask.
fn fill_count(vocabulary_size: usize) -> usize {
    vocabulary_size.min(MAX_FILLS)
}

/// `rows` are the likeliest words of a text's masks, end to end.
pub fn postprocess(
    top_tokens: &[f32],
    vocabulary_size: usize,
    top_k: usize,
    token_text: impl Fn(u32) -> String,
) -> Prediction {
    let fill = |pair: &[f32]| Fill { token: token_text(pair[0] as u32), score: pair[1] };
    let fills = top_tokens
        .chunks_exact(2 * fill_count(vocabulary_size))
        .map(|row| row.chunks_exact(2).take(top_k).map(fill).collect());
    Prediction { fills: fills.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masking() -> MlmVocabulary {
        MlmVocabulary::new(4, [0, 1, 2, 3, 4].into(), 100)
    }

    #[test]
    fn a_share_of_the_tokens_is_masked_and_never_a_special_token() {
        let tokens = Tokens::from_ids([vec![0], (10..50).collect(), vec![2]].concat());
        let config = Config::default();
        let (masked, hidden) = config.mask(&tokens, &masking(), SeededRng::new(1, &["a"]));
        assert_eq!((masked.target_positions.len(), hidden.len()), (6, 6));
        for (row, id) in masked.target_positions.iter().zip(&hidden) {
            assert_eq!(tokens.ids[*row as usize], *id);
        }
        let changed = masked.ids.iter().zip(&tokens.ids).enumerate().filter(|(_, (now, before))| now != before);
        assert!(changed.clone().count() >= 3);
        assert!(changed.clone().all(|(row, _)| masked.target_positions.contains(&(row as u32))));
        assert!(changed.clone().any(|(_, (now, _))| *now == 4));
        assert_ne!(config.mask(&tokens, &masking(), SeededRng::new(1, &["b"])).0, masked);
        assert_eq!(config.mask(&Tokens::from_ids(vec![0, 9, 2]), &masking(), SeededRng::new(1, &["c"])).1, [9]);
        assert_eq!(config.mask(&Tokens::from_ids(vec![0, 2]), &masking(), SeededRng::new(1, &["d"])).1.len(), 1);
    }

    #[test]
    fn fills_are_sorted_by_probability() {
        let rows = [[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]].map(|row| top_tokens(&row)).concat();
        let prediction = postprocess(&rows, 3, 2, |id| format!("w{id}"));
        let tokens: Vec<Vec<&str>> =
            prediction.fills.iter().map(|fills| fills.iter().map(|fill| fill.token.as_str()).collect()).collect();
        assert_eq!(tokens, [["w1", "w2"], ["w0", "w1"]]);
        assert!((prediction.fills[0][0].score - 0.665_241).abs() < 1e-5);
    }
}
