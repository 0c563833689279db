//! Conversations as rows have them: lists of messages, perhaps with the tools that the assistant may call. Knows no template.

use super::columns::Wanted;
use super::findings::{self, Flaw};
use super::row::{Fields, Written};
use crate::model::chat::{Json, Message};
use crate::task::Conversation;
use serde_json::value::RawValue;
use std::borrow::Cow;

const ASSISTANT: &str = "assistant";

const EXAMPLE: &str = "{\"role\": \"user\", \"content\": \"…\"}";

/// Messages of a conversation.
const MOST: usize = 256;

/// # Errors
/// Where they are not messages.
pub(super) fn read(messages: &RawValue, tools: Option<&RawValue>) -> Result<Conversation, Flaw> {
    let messages = list(messages, "messages")?;
    Ok(Conversation { messages, tools: callable(tools)? })
}

fn callable(tools: Option<&RawValue>) -> Result<Option<Json>, Flaw> {
    let tools = tools.map(|tools| match tools.get().starts_with('[') {
        true => serde_json::from_str(tools.get()).map_err(|error| wrong(format!("`tools` cannot be read: {error}"))),
        false => Err(wrong("`tools` has to be a list of tools".to_string())),
    });
    tools.transpose()
}

fn list(messages: &RawValue, field: &str) -> Result<Vec<Message>, Flaw> {
    let all: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| wrong(format!("`{field}` has to be a list of objects like {EXAMPLE}")))?;
    if all.len() > MOST {
        return Err(wrong(format!("there are {} messages, and {MOST} are read at most: shorten it", all.len())));
    }
    all.into_iter().zip(1..).map(|(message, number)| one(message, number)).collect()
}

/// A preference between conversations, as TRL's datasets have it: a prompt of messages and two answers of text or messages; or two
/// whole conversations that begin alike, and perhaps their first message as the prompt again.
pub(super) struct Turns<'a> {
    prompt: Option<&'a RawValue>,
    chosen: &'a RawValue,
    rejected: &'a RawValue,
    tools: Option<&'a RawValue>,
}

impl<'a> Turns<'a> {
    /// `None` where the row has no messages, or not all fields: then it is read, or refused, as texts.
    pub fn of(field: impl Fn(&str) -> Option<&'a RawValue>, wanted: &Wanted) -> Option<Self> {
        let there = |name: &str| field(name).filter(|value| value.get() != "null");
        let is_list = |value: &RawValue| value.get().starts_with('[');
        let (prompt, chosen) = (there(&wanted.text), there(&wanted.target)?);
        let rejected = there(&wanted.second.as_ref()?.name)?;
        let has_messages = is_list(chosen) || is_list(rejected) || prompt.is_some_and(is_list);
        (has_messages && (prompt.is_some() || is_list(chosen))).then(|| Self {
            prompt,
            chosen,
            rejected,
            tools: there("tools"),
        })
    }

    /// # Errors
    /// Where they are not messages, or not two conversations that end with different turns of the assistant's.
    pub fn read(self) -> Result<Fields<'a>, Flaw> {
        let prompt = self.prompt.map(|prompt| answer(prompt, "prompt", "user")).transpose()?.unwrap_or_default();
        let [chosen, rejected] = [(self.chosen, "chosen"), (self.rejected, "rejected")]
            .map(|(field, name)| answer(field, name, ASSISTANT).and_then(|turns| whole(&prompt, turns, name)));
        let (mut chosen, mut rejected) = (chosen?, rejected?);
        let alike = chosen.iter().zip(&rejected).take_while(|(one, other)| is_alike(one, other)).count();
        if alike == chosen.len() || alike == rejected.len() {
            return Err(wrong(
                "`chosen` and `rejected` are the same, or one is the beginning of the other".to_string(),
            ));
        }
        for turns in [&mut chosen, &mut rejected] {
            turns[..alike].iter_mut().for_each(|message| *message = message.with("weight", 0));
        }
        let tools = callable(self.tools)?;
        let pair = [chosen, rejected].map(|messages| Conversation { messages, tools: tools.clone() });
        let text = format!("{} {}", self.prompt.map_or("", RawValue::get), self.chosen.get());
        let rejected = Cow::Borrowed(self.rejected.get());
        Ok(Fields::new(text.into(), Some(rejected), Written::ChosenTurns(Box::new(pair))))
    }
}

/// Whether two messages say the same, whatever their weights.
fn is_alike(one: &Message, other: &Message) -> bool {
    one.with("weight", 0) == other.with("weight", 0)
}

/// Messages, or a text as one message.
fn answer(value: &RawValue, field: &str, role: &str) -> Result<Vec<Message>, Flaw> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => Ok(vec![Message::new(role, text)]),
        Err(_) => list(value, field),
    }
}

/// A prompt with its answer; an answer that does not begin with the assistant is the whole conversation, the prompt in it.
fn whole(prompt: &[Message], answer: Vec<Message>, field: &str) -> Result<Vec<Message>, Flaw> {
    if answer.last().is_none_or(|last| last.role() != ASSISTANT) {
        return Err(wrong(format!("`{field}` has to end with a message of the assistant's")));
    }
    if answer[0].role() == ASSISTANT {
        return Ok([prompt, &answer].concat());
    }
    let is_in_it = answer.len() >= prompt.len() && prompt.iter().zip(&answer).all(|(one, other)| is_alike(one, other));
    match is_in_it {
        true => Ok(answer),
        false => {
            let advice = "begin it with the assistant's message, or with the whole prompt";
            Err(wrong(format!("`{field}` begins with neither: {advice}")))
        }
    }
}

fn one(message: &RawValue, number: usize) -> Result<Message, Flaw> {
    let read: Message = serde_json::from_str(message.get())
        .map_err(|error| wrong(format!("message {number} has to be an object like {EXAMPLE} ({error})")))?;
    let read = read
        .plain()
        .map_err(|part| wrong(format!("message {number} has a part of the type {part}: only text is read")))?;
    let is_weight = |weight: f64| weight == 0.0 || weight == 1.0;
    match read.field("weight") {
        Some(weight) if !f64::try_from(weight.clone()).is_ok_and(is_weight) => {
            Err(wrong(format!("the `weight` of message {number} has to be 0 or 1")))
        }
        _ => Ok(read),
    }
}

fn wrong(message: String) -> Flaw {
    Flaw::new(findings::WRONG_TYPE, message)
}
