//! Log probabilities of a token and of the most probable tokens at its position.

use super::{filters, softmax};

/// Log probabilities of the model's own distribution, before mask, bias, penalties, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// That of the token at this position: the sampled one, or the prompt's.
    pub token: f32,
    /// Number of tokens that are more probable than it, plus 1.
    pub rank: u32,
    /// The most probable tokens in descending order, ties by id; the token at this position need not be among them.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Computes them from the logits `(vocabulary,)`, with the `top_count` most probable tokens. Overwrites `scratch`. `None` if no logit
    /// is finite.
    pub fn of_token(logits: &[f32], token_id: u32, top_count: u32, scratch: &mut Vec<f32>) -> Option<Self> {
        let (_, max_logit) = filters::argmax(logits)?;
        let log_sum_exp = f64::from(max_logit) + softmax::sum_exp(logits, max_logit).ln();
        let logprob = |logit: f32| (f64::from(logit) - log_sum_exp) as f32;
        let token_logit = *logits.get(token_id as usize)?;
        let top = filters::top_k(logits, top_count as usize, scratch);
        Some(Self {
            token: logprob(token_logit),
            rank: 1 + logits.iter().map(|logit| u32::from(*logit > token_logit)).sum::<u32>(),
            top: top.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_counts_more_probable_tokens() {
        let logits = [0.5, 2.0, 2.0, -1.0, f32::NAN];
        let rank = |id| Logprobs::of_token(&logits, id, 0, &mut Vec::new()).map(|logprobs| logprobs.rank);
        assert_eq!([0, 1, 2, 3].map(rank), [Some(3), Some(1), Some(1), Some(4)]);
        assert_eq!(rank(9), None);
        assert_eq!(Logprobs::of_token(&[f32::NAN; 4], 0, 1, &mut Vec::new()), None);
    }
}
