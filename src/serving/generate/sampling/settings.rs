//! What may be asked of sampling, and what is wrong with it. Knows nothing of requests: fields have their own names.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The defaults are OpenAI's and vLLM's: the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Logits are divided by it; at 0 the likeliest token is taken.
    pub temperature: f32,
    /// The likeliest tokens that have this share of the probability together (Holtzman et al. 2019).
    pub top_p: f32,
    /// So many of the likeliest tokens, with all that equal the last of them; 0: all.
    pub top_k: u32,
    /// Tokens at least so likely, as a share of the likeliest (Nguyen et al. 2024).
    pub min_p: f32,
    /// What is in the prompt or the output: logits above 0 are divided by it, others multiplied (Keskar et al. 2019).
    pub repetition_penalty: f32,
    /// Taken from the logit of what is in the output.
    pub presence_penalty: f32,
    /// Taken from the logit once for each time that the token is in the output.
    pub frequency_penalty: f32,
    /// Added to the logits of these ids.
    pub logit_bias: BTreeMap<u32, f32>,
    pub seed: u64,
    /// How many of the likeliest tokens to tell beside the chosen one; None: not even that one.
    pub logprobs: Option<u32>,
}

impl Default for Settings {
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

const TEMPERATURES: RangeInclusive<f32> = 0.0..=2.0;
const SHARES: RangeInclusive<f32> = 0.0..=1.0;
const PENALTIES: RangeInclusive<f32> = -2.0..=2.0;
const BIASES: RangeInclusive<f32> = -100.0..=100.0;
const REPETITIONS: RangeInclusive<f32> = 0.01..=10.0;
const MOST_LOGPROBS: u32 = 20;

impl Settings {
    /// The fields that are out of range, each with a sentence. A number that is none is out of every range.
    pub fn faults(&self, vocabulary: usize) -> Vec<(&'static str, String)> {
        let between = |field, value: f32, range: RangeInclusive<f32>| {
            let message = || format!("must be from {} to {}, not {value}", range.start(), range.end());
            (!range.contains(&value)).then(|| (field, message()))
        };
        let above_zero = |field, value: f32, most: f32| {
            (!(value > 0.0 && value <= most))
                .then(|| (field, format!("must be above 0 and at most {most}, not {value}")))
        };
        let logprobs = self.logprobs.filter(|count| *count > MOST_LOGPROBS);
        [
            between("temperature", self.temperature, TEMPERATURES),
            above_zero("top_p", self.top_p, *SHARES.end()),
            between("min_p", self.min_p, SHARES),
            between("repetition_penalty", self.repetition_penalty, REPETITIONS),
            between("presence_penalty", self.presence_penalty, PENALTIES),
            between("frequency_penalty", self.frequency_penalty, PENALTIES),
            self.unknown_id(vocabulary),
            self.wrong_bias(),
            logprobs.map(|count| ("logprobs", format!("must be at most {MOST_LOGPROBS}, not {count}"))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Only the first: a map may be long.
    fn unknown_id(&self, vocabulary: usize) -> Option<(&'static str, String)> {
        let id = self.logit_bias.keys().find(|id| **id as usize >= vocabulary)?;
        Some(("logit_bias", format!("{id} is not a token: the vocabulary's ids are below {vocabulary}")))
    }

    fn wrong_bias(&self) -> Option<(&'static str, String)> {
        let (id, bias) = self.logit_bias.iter().find(|(_, bias)| !BIASES.contains(bias))?;
        let (least, most) = (BIASES.start(), BIASES.end());
        Some(("logit_bias", format!("the bias of {id} must be from {least} to {most}, not {bias}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(settings: &Settings) -> Vec<&'static str> {
        settings.faults(10).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn the_defaults_and_the_ends_of_the_ranges_are_right() {
        let most = Settings {
            temperature: 2.0,
            min_p: 1.0,
            repetition_penalty: 10.0,
            presence_penalty: 2.0,
            frequency_penalty: 2.0,
            logit_bias: [(0, -100.0), (9, 100.0)].into(),
            logprobs: Some(20),
            ..Settings::default()
        };
        let least = Settings {
            temperature: 0.0,
            top_p: f32::MIN_POSITIVE,
            repetition_penalty: 0.01,
            presence_penalty: -2.0,
            frequency_penalty: -2.0,
            logprobs: Some(0),
            ..Settings::default()
        };
        for settings in [Settings::default(), most, least] {
            assert_eq!(settings.faults(10), []);
        }
    }

    #[test]
    fn every_field_out_of_range_is_named() {
        let all = [
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
        let above = Settings {
            temperature: 2.1,
            top_p: 1.1,
            top_k: u32::MAX,
            min_p: 1.1,
            repetition_penalty: 10.1,
            presence_penalty: 2.1,
            frequency_penalty: 2.1,
            logit_bias: [(1, 100.1), (10, 0.0), (11, 0.0)].into(),
            logprobs: Some(21),
            ..Settings::default()
        };
        assert_eq!(fields(&above), all);
        let below = Settings {
            temperature: -0.1,
            top_p: 0.0,
            min_p: -0.1,
            repetition_penalty: 0.0,
            presence_penalty: -2.1,
            frequency_penalty: -2.1,
            logit_bias: [(1, -100.1), (10, 0.0)].into(),
            ..Settings::default()
        };
        assert_eq!(fields(&below), all[..8]);
        let nan = f32::NAN;
        let none = Settings {
            temperature: nan,
            top_p: nan,
            min_p: nan,
            repetition_penalty: nan,
            presence_penalty: nan,
            frequency_penalty: f32::INFINITY,
            logit_bias: [(1, nan), (10, 0.0)].into(),
            ..Settings::default()
        };
        assert_eq!(fields(&none), all[..8]);
    }

    #[test]
    fn a_fault_says_what_is_right() {
        let settings = Settings { temperature: 3.0, top_p: 0.0, logit_bias: [(12, 1.0)].into(), ..Settings::default() };
        let messages: Vec<String> = settings.faults(10).into_iter().map(|(_, message)| message).collect();
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
