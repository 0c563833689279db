//! `best_of`: more texts are generated than are returned.

use super::choice_output::ChoiceOutput;
use crate::serving::generation::TokenOutput;

/// Returns the texts of each prompt with the highest mean log probability of their tokens.
#[derive(Debug, Clone, Copy)]
pub struct BestOf {
    /// Texts that are returned per prompt.
    pub kept: usize,
    /// Whether the request asks for log probabilities; the selection needs them anyway.
    pub keeps_logprobs: bool,
}

impl BestOf {
    /// Selects from `outputs`, of which each prompt has `per_prompt`. The best comes first.
    pub fn select(self, outputs: Vec<ChoiceOutput>, per_prompt: usize) -> Vec<ChoiceOutput> {
        let mut selected = Vec::new();
        let mut outputs = outputs.into_iter().peekable();
        while outputs.peek().is_some() {
            let mut group: Vec<ChoiceOutput> = outputs.by_ref().take(per_prompt).collect();
            group.sort_by(|one, other| mean_logprob(&other.tokens).total_cmp(&mean_logprob(&one.tokens)));
            group.truncate(self.kept);
            selected.extend(group);
        }
        if !self.keeps_logprobs {
            selected.iter_mut().flat_map(|output| &mut output.tokens).for_each(|token| token.logprobs = None);
        }
        selected
    }
}

fn mean_logprob(tokens: &[TokenOutput]) -> f64 {
    let sum: f64 = tokens.iter().flat_map(|token| &token.logprobs).map(|logprobs| f64::from(logprobs.token)).sum();
    sum / tokens.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::generation::sampling::Logprobs;

    fn output(text: &str, logprobs: &[f32]) -> ChoiceOutput {
        let token = |logprob: &f32| TokenOutput {
            token_id: 1,
            text_delta: String::new(),
            text_offset: 0,
            logprobs: Some(Logprobs { token: *logprob, rank: 1, top: Vec::new() }),
            finish_reason: None,
        };
        let tokens = logprobs.iter().map(token).collect();
        ChoiceOutput { prompt: None, text: text.to_string(), tokens, finish_reason: "stop" }
    }

    #[test]
    fn texts_are_ordered_by_mean_log_probability() {
        let outputs = vec![
            output("a", &[-1.0, -1.0, -1.0]),
            output("b", &[-2.0]),
            output("c", &[-0.5, -0.75]),
            output("d", &[-3.0]),
            output("e", &[-0.1]),
            output("f", &[-2.0]),
        ];
        let best = BestOf { kept: 2, keeps_logprobs: false }.select(outputs, 3);
        let texts: Vec<&str> = best.iter().map(|output| output.text.as_str()).collect();
        assert_eq!(texts, ["c", "a", "e", "f"]);
        assert!(best.iter().flat_map(|output| &output.tokens).all(|token| token.logprobs.is_none()));
    }
}
