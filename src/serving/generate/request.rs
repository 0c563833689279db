//! What a sequence is asked for, and what it answers.

use super::grammar::Grammar;
use super::sampling::{self, Logprobs};
use super::text::{Finish, Limits};
use crate::serving::resident::Resident;
use espalier_core::error::Error;
use espalier_core::model::chat::{Asked, Message};
use tokio::sync::mpsc::UnboundedReceiver;

/// What is to be gone on from.
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Messages { messages: Vec<Message>, asked: Asked },
}

/// One sequence to be.
pub struct Ask {
    pub resident: Resident,
    /// The adapter's version; empty for the bare base.
    pub version: String,
    /// The prompt's tokens, at least one.
    pub prompt: Vec<u32>,
    pub sampling: sampling::Settings,
    pub limits: Limits,
    /// What the answer has to be.
    pub grammar: Option<Grammar>,
    /// Its number among those with the same prompt.
    pub choice: u32,
}

/// A token that was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    pub id: u32,
    /// What it adds to the text: nothing while a character is incomplete, or may be the beginning of a stop string.
    pub text: String,
    /// Where it begins, in characters of the whole text.
    pub offset: usize,
    pub logprobs: Option<Logprobs>,
}

/// What happens to a sequence.
#[derive(Debug)]
pub enum Event {
    Token(Chosen),
    /// The last one.
    Finished(Finish),
    /// The last one: nothing more comes.
    Failed(Error),
}

/// A sequence that is under way. When it is dropped, its room is free at the next step.
pub struct Generation {
    pub(super) events: UnboundedReceiver<Event>,
    pub prompt_tokens: usize,
    /// Once nothing more comes.
    pub finish: Option<Finish>,
}

/// All that a sequence has said.
pub struct Said {
    pub text: String,
    pub tokens: Vec<Chosen>,
    pub finish: Finish,
}

impl Generation {
    /// What comes next; `None` after the finish.
    ///
    /// # Errors
    /// Where the sequence failed.
    pub async fn next(&mut self) -> Result<Option<Chosen>, Error> {
        match self.events.recv().await {
            Some(Event::Token(chosen)) => Ok(Some(chosen)),
            Some(Event::Finished(finish)) => {
                self.finish = Some(finish);
                Ok(None)
            }
            Some(Event::Failed(error)) => Err(error),
            None => Err(Error::internal("a step of generation was lost")),
        }
    }

    /// Waits for the finish.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn all(mut self) -> Result<Said, Error> {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        while let Some(chosen) = self.next().await? {
            text.push_str(&chosen.text);
            tokens.push(chosen);
        }
        Ok(Said { text, tokens, finish: self.finish.unwrap_or(Finish::Stop) })
    }
}
