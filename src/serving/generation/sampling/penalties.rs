//! What has been said changes what may be said next: bias and penalties. Knows nothing of temperature and draws.

use super::SamplingParams;
use std::collections::BTreeMap;

/// How often each token was said in the output; those that are only in the prompt stand with 0.
///
/// In the order of the ids, so that the logits are visited in the order of memory.
#[derive(Debug, Clone, Default)]
pub struct TokenCounts {
    counts: BTreeMap<u32, u32>,
}

impl TokenCounts {
    pub fn new(params: &SamplingParams, prompt: &[u32]) -> Self {
        // Only repetition looks at the prompt, which may be long.
        let prompt = if params.repetition_penalty == 1.0 { &[] } else { prompt };
        Self { counts: prompt.iter().map(|id| (*id, 0)).collect() }
    }

    pub fn record(&mut self, id: u32) {
        *self.counts.entry(id).or_default() += 1;
    }

    /// Ids beyond the logits are passed over: a prompt's padding and the like cannot be said.
    pub fn apply(&self, params: &SamplingParams, logits: &mut [f32]) {
        for (id, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        let (repetition, presence, frequency) =
            (params.repetition_penalty, params.presence_penalty, params.frequency_penalty);
        if (repetition, presence, frequency) == (1.0, 0.0, 0.0) {
            return;
        }
        for (id, count) in &self.counts {
            let Some(logit) = logits.get_mut(*id as usize) else { break };
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            if *count > 0 {
                *logit -= frequency * *count as f32 + presence;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [3.0, -1.0, 0.0, 2.0, -4.0, 1.0];

    fn penalized(params: &SamplingParams, prompt: &[u32], output: &[u32]) -> Vec<f32> {
        let mut token_counts = TokenCounts::new(params, prompt);
        output.iter().for_each(|id| token_counts.record(*id));
        let mut logits = LOGITS;
        token_counts.apply(params, &mut logits);
        logits.to_vec()
    }

    #[test]
    fn repetition_penalty_divides_positive_logits_and_multiplies_others_once() {
        let settings = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::default() };
        // 0 and 1 in the prompt, 3 in the output, 4 in both and often, 99 is no logit
        assert_eq!(penalized(&settings, &[0, 1, 1, 4, 99], &[3, 4, 4]), [1.5, -2.0, 0.0, 1.0, -8.0, 1.0]);
    }

    #[test]
    fn repetition_penalty_matches_transformers() {
        // RepetitionPenaltyLogitsProcessor(1.3)(tensor([[0, 1, 3, 4]]), tensor([[3., -1, 0, 2, -4, 1]]))
        let expected = [2.307_692_3, -1.3, 0.0, 1.538_461_6, -5.2, 1.0];
        let settings = SamplingParams { repetition_penalty: 1.3, ..SamplingParams::default() };
        assert_eq!(penalized(&settings, &[0, 1], &[3, 4]), expected);
    }

    #[test]
    fn presence_applies_once_frequency_per_occurrence_and_neither_to_the_prompt() {
        let presence = SamplingParams { presence_penalty: 0.5, ..SamplingParams::default() };
        assert_eq!(penalized(&presence, &[0, 1, 2], &[3, 5, 5, 5]), [3.0, -1.0, 0.0, 1.5, -4.0, 0.5]);
        let frequency = SamplingParams { frequency_penalty: 0.5, ..SamplingParams::default() };
        assert_eq!(penalized(&frequency, &[0, 1, 2], &[3, 5, 5, 5]), [3.0, -1.0, 0.0, 1.5, -4.0, -0.5]);
        let reward = SamplingParams { frequency_penalty: -1.0, presence_penalty: -0.25, ..SamplingParams::default() };
        assert_eq!(penalized(&reward, &[], &[3, 5, 5, 5]), [3.0, -1.0, 0.0, 3.25, -4.0, 4.25]);
    }

    #[test]
    fn bias_is_applied_first_then_repetition_then_presence_and_frequency() {
        let settings = SamplingParams {
            repetition_penalty: 2.0,
            presence_penalty: 0.25,
            frequency_penalty: 0.5,
            logit_bias: [(1, 3.0), (5, -3.0), (77, 1.0)].into(),
            ..SamplingParams::default()
        };
        // 1: (−1 + 3) / 2 − 2·0.5 − 0.25; 5: (1 − 3) · 2
        assert_eq!(penalized(&settings, &[5], &[1, 1]), [3.0, -0.25, 0.0, 2.0, -4.0, -4.0]);
    }

    #[test]
    fn masked_tokens_stay_masked() {
        let settings =
            SamplingParams { repetition_penalty: 0.5, logit_bias: [(0, 100.0)].into(), ..SamplingParams::default() };
        let mut logits = [f32::NEG_INFINITY, 1.0];
        TokenCounts::new(&settings, &[0]).apply(&settings, &mut logits);
        assert_eq!(logits, [f32::NEG_INFINITY, 1.0]);
    }
}
