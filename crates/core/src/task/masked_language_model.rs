//! Masked language modelling: the words behind masks (Devlin et al. 2019). An adapter learns how a domain writes, from plain
//! texts; other jobs may start from it.

use crate::error::Fault;
use crate::model::{Masking, Tokens};
use espalier_tensor::random::Random;
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
    pub fn faults(&self) -> Vec<Fault> {
        match (0.01..=0.5).contains(&self.mask_probability) {
            true => Vec::new(),
            false => vec![Fault::at_pointer("/task/mask_probability", "mask_probability must be between 0.01 and 0.5")],
        }
    }

    /// How many tokens of a text are to be found: always one at least.
    pub fn count(&self, tokens: &Tokens, masking: &Masking) -> usize {
        let open = masking.open(tokens).len();
        ((open as f64 * self.mask_probability).round() as usize).max(1).min(open)
    }

    /// The text with some of its tokens hidden, and which they were.
    pub fn mask(&self, tokens: &Tokens, masking: &Masking, mut random: Random) -> (Tokens, Vec<u32>) {
        let mut open = masking.open(tokens);
        random.shuffle(&mut open);
        open.truncate(self.count(tokens, masking));
        open.sort_unstable();
        let hidden = open.iter().map(|row| tokens.ids[*row as usize]).collect();
        let mut ids = tokens.ids.clone();
        for row in &open {
            match random.below(10) {
                0..8 => ids[*row as usize] = masking.mask,
                8 => ids[*row as usize] = masking.any(random.below(masking.words())),
                _ => {}
            }
        }
        (Tokens { ids, picked: open, ..tokens.clone() }, hidden)
    }
}

/// Words that are told of a mask at most: the rest of a vocabulary is forgotten where it was computed.
pub const MOST: usize = 100;

/// The likeliest words of a row of logits, the first first: of each its id and its probability, end to end.
pub fn likeliest(logits: &[f32]) -> Vec<f32> {
    let probabilities = super::calibration::softmax(logits, 1.0);
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let first = |one: &u32, other: &u32| {
        probabilities[*other as usize].total_cmp(&probabilities[*one as usize]).then(one.cmp(other))
    };
    let count = told(logits.len());
    order.select_nth_unstable_by(count - 1, first);
    order.truncate(count);
    order.sort_unstable_by(first);
    // A number of 24 bits is a whole one as f32: no vocabulary is larger.
    order.iter().flat_map(|id| [*id as f32, probabilities[*id as usize] as f32]).collect()
}

/// Words that are told of a mask.
fn told(vocabulary: usize) -> usize {
    vocabulary.min(MOST)
}

/// `rows` are the likeliest words of a text's masks, end to end.
pub fn decode(rows: &[f32], vocabulary: usize, top_k: usize, token: impl Fn(u32) -> String) -> Prediction {
    let fill = |pair: &[f32]| Fill { token: token(pair[0] as u32), score: pair[1] };
    let fills = rows.chunks_exact(2 * told(vocabulary)).map(|row| row.chunks_exact(2).take(top_k).map(fill).collect());
    Prediction { fills: fills.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masking() -> Masking {
        Masking::new(4, [0, 1, 2, 3, 4].into(), 100)
    }

    #[test]
    fn a_share_of_the_words_is_hidden_and_never_a_special_token() {
        let tokens = Tokens::whole([vec![0], (10..50).collect(), vec![2]].concat());
        let config = Config::default();
        let (masked, hidden) = config.mask(&tokens, &masking(), Random::new(1, &["a"]));
        assert_eq!((masked.picked.len(), hidden.len()), (6, 6));
        for (row, id) in masked.picked.iter().zip(&hidden) {
            assert_eq!(tokens.ids[*row as usize], *id);
        }
        let changed = masked.ids.iter().zip(&tokens.ids).enumerate().filter(|(_, (now, before))| now != before);
        assert!(changed.clone().count() >= 3);
        assert!(changed.clone().all(|(row, _)| masked.picked.contains(&(row as u32))));
        assert!(changed.clone().any(|(_, (now, _))| *now == 4));
        assert_ne!(config.mask(&tokens, &masking(), Random::new(1, &["b"])).0, masked);
        assert_eq!(config.mask(&Tokens::whole(vec![0, 9, 2]), &masking(), Random::new(1, &["c"])).1, [9]);
        assert_eq!(config.mask(&Tokens::whole(vec![0, 2]), &masking(), Random::new(1, &["d"])).1.len(), 1);
    }

    #[test]
    fn the_likeliest_words_come_first() {
        let rows = [[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]].map(|row| likeliest(&row)).concat();
        let found = decode(&rows, 3, 2, |id| format!("w{id}"));
        let told: Vec<Vec<&str>> =
            found.fills.iter().map(|fills| fills.iter().map(|fill| fill.token.as_str()).collect()).collect();
        assert_eq!(told, [["w1", "w2"], ["w0", "w1"]]);
        assert!((found.fills[0][0].score - 0.665_241).abs() < 1e-5);
    }
}
