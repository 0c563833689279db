//! Conversations as one text: a base model's chat template, rendered as transformers' `apply_chat_template` renders
//! it.
//!
//! Knows nothing of tokens' ids, and of no model family by name: all of that is the template's own.

mod dialect;
mod json;
mod message;
mod python;
mod source;
mod tags;
mod turns;

pub use message::Message;
pub use minijinja::Value as Json;
pub use source::{from_config, from_folder, from_gguf};
pub use turns::Conversation;

use crate::error::{Error, Result};
use chrono::{NaiveDate, NaiveDateTime};
use minijinja::Environment;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A chat template, ready to render. Copies share it.
#[derive(Debug, Clone)]
pub struct Template {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    /// By the names that templates know: `bos_token`, `eos_token`, ….
    tokens: Arc<BTreeMap<String, String>>,
    /// Whether it tells by `{% generation %}` what the assistant says.
    declares_turns: bool,
    tells_time: bool,
}

/// What a template gets beside the messages. Nothing of it is needed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// The functions that the model may call: a list of JSON schemas.
    pub tools: Option<Json>,
    /// Documents to answer from, each with `title` and `text`.
    pub documents: Option<Json>,
    /// Further variables that the template knows, such as `enable_thinking`. They win over tokens of the same name.
    pub variables: BTreeMap<String, Json>,
    /// What the template's `strftime_now` tells; the machine's local time where it is not given. With a fixed time,
    /// the same messages give the same text at any time.
    pub now: Option<NaiveDateTime>,
}

impl Asked {
    /// The same conversation is the same text at any time, whatever day a template tells.
    pub fn steady() -> Self {
        Self { now: NaiveDate::from_ymd_opt(2024, 7, 26).map(NaiveDateTime::from), ..Self::default() }
    }
}

/// What the text ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    LastMessage,
    GenerationPrompt,
}

impl Template {
    /// `tokens` are the tokenizer's special tokens as a text has them, by the names that templates know.
    ///
    /// # Errors
    /// `Invalid` (`bad_chat_template`) where it does not parse.
    pub fn new(source: &str, tokens: BTreeMap<String, String>) -> Result<Self> {
        let tells_time = source.contains("strftime_now");
        let (rewritten, declares_turns) = tags::rewrite(source);
        let environment = dialect::environment(rewritten).map_err(|error| unreadable(&error))?;
        let (environment, source, tokens) = (Arc::new(environment), source.into(), Arc::new(tokens));
        Ok(Self { environment, source, tokens, declares_turns, tells_time })
    }

    /// What it was made from, as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation so far, finished: what a model is trained on.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) with the template's own words, or minijinja's.
    pub fn render(&self, messages: &[Message], asked: &Asked) -> Result<String> {
        self.text(&self.environment, messages, asked, Ending::LastMessage)
    }

    /// The conversation with the generation prompt at its end: what a model goes on from.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) with the template's own words, or minijinja's.
    pub fn prompt(&self, messages: &[Message], asked: &Asked) -> Result<String> {
        self.text(&self.environment, messages, asked, Ending::GenerationPrompt)
    }

    /// As [`Template::render`], with [`dialect::MARKS`] around what the assistant says; `None` where the template
    /// does not tell.
    fn marked(&self, messages: &[Message], asked: &Asked) -> Result<Option<String>> {
        if !self.declares_turns {
            return Ok(None);
        }
        let environment = dialect::marking(Environment::clone(&self.environment));
        self.text(&environment, messages, asked, Ending::LastMessage).map(Some)
    }

    fn text(
        &self,
        environment: &Environment<'static>,
        messages: &[Message],
        asked: &Asked,
        ending: Ending,
    ) -> Result<String> {
        if messages.is_empty() {
            return Err(refused("it needs at least one message"));
        }
        let pinned = asked.now.filter(|_| self.tells_time).map(|now| dialect::at(environment.clone(), now));
        let environment = pinned.as_ref().unwrap_or(environment);
        let template = environment.get_template(dialect::NAME).map_err(Error::internal)?;
        let list = |list: &Option<Json>| list.clone().unwrap_or_else(|| Json::from(()));
        let own = [
            ("messages", messages.iter().map(Message::seen).collect()),
            ("tools", list(&asked.tools)),
            ("documents", list(&asked.documents)),
            ("add_generation_prompt", Json::from(ending == Ending::GenerationPrompt)),
        ];
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), Json::from(token.as_str())));
        let variables = asked.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let context = Json::from_pairs(tokens.chain(variables).chain(own));
        template.render(context).map_err(|error| refused(dialect::raised(&error).unwrap_or(&error.to_string())))
    }
}

fn refused(reason: &str) -> Error {
    let detail = format!("the base model's chat template does not take this conversation: {reason}");
    Error::invalid("chat_template_refused", detail)
}

fn unreadable(error: &minijinja::Error) -> Error {
    Error::invalid("bad_chat_template", format!("the base model's chat template cannot be read: {error}"))
}
