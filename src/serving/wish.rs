//! What a request for generated text asks, and how it becomes sequences.

use super::generate::grammar::{Format, Grammar, Grammars};
use super::generate::sampling;
use super::generate::text::{Limits, StopText};
use super::generate::{Ask, Generation, Prompt, check};
use super::resident::Resident;
use crate::store::Adapter;
use espalier_core::error::{Error, Fault, Problem, Result};
use espalier_core::model::Base;
use std::sync::Arc;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Several texts may go on from each prompt.
pub struct Wish {
    pub prompts: Vec<Prompt>,
    pub sampling: sampling::Settings,
    pub stops: Vec<String>,
    pub stop_text: StopText,
    /// What each answer has to be, where it is not free.
    pub format: Option<Format>,
    /// The server's usual number where it is left out, as far as the base reads.
    pub max_tokens: Option<u32>,
    /// Of each prompt.
    pub choices: u32,
}

/// A request that is under way: prompt by prompt its choices, and the version that answers.
pub struct Started {
    pub adapter: Option<Arc<Adapter>>,
    pub generations: Vec<Generation>,
    /// The server does not go down before it is dropped.
    pub(super) _request: TaskTrackerToken,
}

/// Stop strings of a request, and bytes of one.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 1000;

/// What a server has room for.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Tokens where a request does not say how many.
    pub usual_tokens: u32,
    /// Rows of a sequence.
    pub rows: usize,
    /// Texts of a request.
    pub texts: usize,
}

impl Wish {
    /// # Errors
    /// `Invalid` with a pointer to each wrong field; `no_generation` for an adapter of another task; what the chat template
    /// says against a conversation.
    pub fn asks(
        self,
        base: &Base,
        grammars: &Grammars,
        resident: &Resident,
        version: &str,
        limits: Room,
    ) -> Result<Vec<Ask>> {
        if let Some(adapted) = &resident.0
            && !adapted.card.task.generates()
        {
            let name = adapted.card.task.name();
            let detail = format!("an adapter for {name} does not say what comes next: ask it by POST /predict");
            return Err(Error::invalid("no_generation", detail));
        }
        self.check(base, limits.texts)?;
        let grammar = self.format.as_ref().map(|format| grammars.grammar(format)).transpose()?;
        let stop_ids = base.tokenizer().stops().to_vec();
        let mut asks = Vec::new();
        for prompt in &self.prompts {
            let ids = tokens(base, prompt)?;
            let room = base.info().max_tokens.min(limits.rows).saturating_sub(ids.len() + resident.virtual_rows());
            let max_tokens = self.max_tokens.unwrap_or(limits.usual_tokens.min(room.max(1) as u32));
            check(base, resident, &ids, max_tokens as usize)?;
            for choice in 0..self.choices {
                let limits = Limits {
                    stops: self.stops.clone(),
                    stop_text: self.stop_text,
                    stop_ids: stop_ids.clone(),
                    max_tokens,
                };
                let (resident, version) = (resident.clone(), version.to_string());
                let (prompt, sampling) = (ids.clone(), self.sampling.clone());
                let grammar = grammar.as_ref().map(Grammar::copy);
                asks.push(Ask { resident, version, prompt, sampling, limits, grammar, choice });
            }
        }
        Ok(asks)
    }

    fn check(&self, base: &Base, texts: usize) -> Result<()> {
        let faults = self.sampling.faults(base.info().vocabulary_size).into_iter();
        let mut faults: Vec<Fault> = faults
            .map(|(field, message)| Fault::at_pointer(format!("/{field}"), format!("{field} {message}")))
            .collect();
        let mut refuse = |is_wrong: bool, field: &str, message: &str| {
            if is_wrong {
                faults.push(Fault::at_pointer(format!("/{field}"), message));
            }
        };
        refuse(self.max_tokens == Some(0), "max_tokens", "max_tokens must be at least 1");
        refuse(self.stops.iter().any(String::is_empty), "stop", "a stop must not be empty");
        refuse(self.stops.len() > MOST_STOPS, "stop", "there may be 16 stops at most");
        let is_long = |stop: &String| stop.len() > LONGEST_STOP;
        refuse(self.stops.iter().any(is_long), "stop", "a stop may have 1000 bytes at most");
        let count = self.prompts.len().saturating_mul(self.choices as usize);
        let many = format!("{count} texts are too many for one request: ask for at most {texts}");
        refuse(count > texts, "inputs", &many);
        refuse(!(1..=128).contains(&self.choices), "n", "n must be between 1 and 128");
        refuse(self.prompts.is_empty(), "inputs", "give at least one prompt");
        match faults.as_slice() {
            [] => Ok(()),
            [first, ..] => {
                let detail = format!("the request cannot be answered: {}", first.message);
                Err(Error::Invalid(Problem::new("invalid_generation", detail).with_faults(faults)))
            }
        }
    }
}

fn tokens(base: &Base, prompt: &Prompt) -> Result<Vec<u32>> {
    match prompt {
        Prompt::Text(text) => base.tokenizer().prompt(text),
        Prompt::Tokens(ids) => match ids.iter().find(|id| **id as usize >= base.info().vocabulary_size) {
            None => Ok(ids.clone()),
            Some(id) => {
                Err(Error::invalid("invalid_generation", format!("the prompt's token {id} is not in the vocabulary")))
            }
        },
        Prompt::Messages { messages, asked } => base.tokenizer().chat(messages, asked),
    }
}
