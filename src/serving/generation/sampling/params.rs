//! Sampling parameters and their validation.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Defaults are OpenAI's and vLLM's: the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 selects the argmax.
    pub temperature: f32,
    /// Keeps the most probable tokens with this total probability (Holtzman et al. 2019).
    pub top_p: f32,
    /// Keeps this number of most probable tokens, and all ties of the last; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens with at least this fraction of the largest probability (Nguyen et al. 2024).
    pub min_p: f32,
    /// Divides positive logits of tokens in the prompt or output, and multiplies their other logits (Keskar et al. 2019).
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the output.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token once per occurrence in the output.
    pub frequency_penalty: f32,
    /// Added to the logits of these token ids.
    pub logit_bias: BTreeMap<u32, f32>,
    pub seed: u64,
    /// Number of most probable tokens to report beside the sampled one; `None` reports no logprobs.
    pub logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

const TEMPERATURE_RANGE: RangeInclusive<f32> = 0.0..=2.0;
const PROBABILITY_RANGE: RangeInclusive<f32> = 0.0..=1.0;
const PENALTY_RANGE: RangeInclusive<f32> = -2.0..=2.0;
const LOGIT_BIAS_RANGE: RangeInclusive<f32> = -100.0..=100.0;
const REPETITION_PENALTY_RANGE: RangeInclusive<f32> = 0.01..=10.0;
/// Most of the most probable tokens that are reported per position.
pub const MAX_LOGPROBS: u32 = 20;

impl SamplingParams {
    /// Returns the fields that are out of range, each with a message. NaN is out of every range.
    pub fn validate(&self, vocabulary_size: usize) -> Vec<(&'static str, String)> {
        let check_range = |field, value: f32, range: RangeInclusive<f32>| {
            let message = || format!("must be from {} to {}, not {value}", range.start(), range.end());
            (!range.contains(&value)).then(|| (field, message()))
        };
        let check_positive = |field, value: f32, max: f32| {
            (!(value > 0.0 && value <= max)).then(|| (field, format!("must be above 0 and at most {max}, not {value}")))
        };
        let logprobs = self.logprobs.filter(|count| *count > MAX_LOGPROBS);
        [
            check_range("temperature", self.temperature, TEMPERATURE_RANGE),
            check_positive("top_p", self.top_p, *PROBABILITY_RANGE.end()),
            check_range("min_p", self.min_p, PROBABILITY_RANGE),
            check_range("repetition_penalty", self.repetition_penalty, REPETITION_PENALTY_RANGE),
            check_range("presence_penalty", self.presence_penalty, PENALTY_RANGE),
            check_range("frequency_penalty", self.frequency_penalty, PENALTY_RANGE),
            self.check_bias_ids(vocabulary_size),
            self.check_bias_values(),
            logprobs.map(|count| ("logprobs", format!("must be at most {MAX_LOGPROBS}, not {count}"))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Reports the first invalid id only: the map may be long.
    fn check_bias_ids(&self, vocabulary_size: usize) -> Option<(&'static str, String)> {
        let id = self.logit_bias.keys().find(|id| **id as usize >= vocabulary_size)?;
        Some(("logit_bias", format!("{id} is not a token: the vocabulary's ids are below {vocabulary_size}")))
    }

    fn check_bias_values(&self) -> Option<(&'static str, String)> {
        let (id, bias) = self.logit_bias.iter().find(|(_, bias)| !LOGIT_BIAS_RANGE.contains(bias))?;
        let (min, max) = (LOGIT_BIAS_RANGE.start(), LOGIT_BIAS_RANGE.end());
        Some(("logit_bias", format!("the bias of {id} must be from {min} to {max}, not {bias}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid_fields(params: &SamplingParams) -> Vec<&'static str> {
        params.validate(10).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn defaults_and_range_limits_are_valid() {
        let upper = SamplingParams {
            temperature: 2.0,
            min_p: 1.0,
            repetition_penalty: 10.0,
            presence_penalty: 2.0,
            frequency_penalty: 2.0,
            logit_bias: [(0, -100.0), (9, 100.0)].into(),
            logprobs: Some(20),
            ..SamplingParams::default()
        };
        let lower = SamplingParams {
            temperature: 0.0,
            top_p: f32::MIN_POSITIVE,
            repetition_penalty: 0.01,
            presence_penalty: -2.0,
            frequency_penalty: -2.0,
            logprobs: Some(0),
            ..SamplingParams::default()
        };
        for params in [SamplingParams::default(), upper, lower] {
            assert_eq!(params.validate(10), []);
        }
    }

    #[test]
    fn every_field_out_of_range_is_reported() {
        let expected = [
            "temperature",
            "top_p",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "logit_bias",
            "logprobs",
        ];
        let too_large = SamplingParams {
            temperature: 2.1,
            top_p: 1.1,
            top_k: u32::MAX,
            min_p: 1.1,
            repetition_penalty: 10.1,
            presence_penalty: 2.1,
            frequency_penalty: 2.1,
            logit_bias: [(1, 100.1), (10, 0.0), (11, 0.0)].into(),
            logprobs: Some(21),
            ..SamplingParams::default()
        };
        assert_eq!(invalid_fields(&too_large), expected);
        let too_small = SamplingParams {
            temperature: -0.1,
            top_p: 0.0,
            min_p: -0.1,
            repetition_penalty: 0.0,
            presence_penalty: -2.1,
            frequency_penalty: -2.1,
            logit_bias: [(1, -100.1), (10, 0.0)].into(),
            ..SamplingParams::default()
        };
        assert_eq!(invalid_fields(&too_small), expected[..8]);
        let nan = f32::NAN;
        let not_finite = SamplingParams {
            temperature: nan,
            top_p: nan,
            min_p: nan,
            repetition_penalty: nan,
            presence_penalty: nan,
            frequency_penalty: f32::INFINITY,
            logit_bias: [(1, nan), (10, 0.0)].into(),
            ..SamplingParams::default()
        };
        assert_eq!(invalid_fields(&not_finite), expected[..8]);
    }

    #[test]
    fn an_error_message_states_the_valid_range() {
        let params = SamplingParams {
            temperature: 3.0,
            top_p: 0.0,
            logit_bias: [(12, 1.0)].into(),
            ..SamplingParams::default()
        };
        let messages: Vec<String> = params.validate(10).into_iter().map(|(_, message)| message).collect();
        assert_eq!(
            messages,
            [
                "must be from 0 to 2, not 3",
                "must be above 0 and at most 1, not 0",
                "12 is not a token: the vocabulary's ids are below 10",
            ]
        );
    }
}
