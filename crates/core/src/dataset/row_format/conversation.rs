//! Rows of a conversation (`messages`), and rows of a prompt with a preferred and a rejected answer: texts, or conversations as in
//! TRL's datasets.

use super::{Cells, FieldChecks, FileStats, RowFormat, needs_json};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::json_fields::{JsonObject, string_value, wrong_type};
use crate::dataset::row::{RowErrors, ValidRow};
use crate::model::chat::{ASSISTANT_ROLE, Json, Message};
use crate::task::{Conversation, Target};
use serde_json::value::RawValue;
use std::borrow::Cow;

pub(super) struct Preference;

impl RowFormat for Preference {
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        text_row(cells.text, cells.target, cells.second_text)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        if let Some(conversations) = ConversationPair::from_object(object, mapping) {
            return Ok(conversations.into_row()?);
        }
        let fields = object.fields(mapping)?;
        let (prompt, chosen) =
            RowErrors::both(string_value(fields.text, "prompt"), string_value(fields.target, "chosen"))?;
        text_row(prompt, chosen, fields.second_text)
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

/// White space is part of a prompt and of its answers, and is kept.
fn text_row(prompt: Cow<'_, str>, chosen: Cow<'_, str>, rejected: Option<Cow<'_, str>>) -> Result<ValidRow, RowErrors> {
    let mut checks = FieldChecks::default();
    checks.require_text("prompt", &prompt);
    if rejected.is_none() {
        let message = "the rejected answer is null: fill it in, or leave the row out";
        checks.push(Diagnostic::new(diagnostics::EMPTY_TEXT, message));
    } else if rejected.as_ref() == Some(&chosen) {
        let message = "chosen and rejected are the same: there is nothing to prefer, leave the row out";
        checks.push(Diagnostic::new(diagnostics::EMPTY_TEXT, message));
    } else {
        checks.require_text("chosen answer", &chosen);
    }
    let texts = [Some(prompt.as_ref()), Some(chosen.as_ref()), rejected.as_deref()];
    let trimmed_fields = checks.finish::<&str>(&texts, &[])?;
    Ok(ValidRow {
        duplicate_key: DuplicateKey::whole_row(&texts),
        text: prompt.into_owned(),
        text_pair: None,
        target: Target::Preference {
            chosen: chosen.into_owned(),
            rejected: rejected.map(Cow::into_owned).unwrap_or_default(),
        },
        trimmed_fields,
        warning: None,
    })
}

/// Preference between two conversations: a prompt of messages and two answers (texts or messages), or two whole
/// conversations with the same beginning, optionally with that beginning as the prompt.
struct ConversationPair<'a> {
    prompt: Option<&'a RawValue>,
    chosen: &'a RawValue,
    rejected: &'a RawValue,
    tools: Option<&'a RawValue>,
}

impl<'a> ConversationPair<'a> {
    /// `None` if the row has no messages or lacks a field. It is then read as texts.
    fn from_object(object: &JsonObject<'a>, mapping: &ColumnMapping) -> Option<Self> {
        let is_list = |value: &RawValue| value.get().starts_with('[');
        let (prompt, chosen) = (object.get(&mapping.text_column), object.get(&mapping.target_column)?);
        let rejected = object.get(&mapping.second_text.as_ref()?.column)?;
        let contains_messages = is_list(chosen) || is_list(rejected) || prompt.is_some_and(is_list);
        (contains_messages && (prompt.is_some() || is_list(chosen))).then(|| Self {
            prompt,
            chosen,
            rejected,
            tools: object.get("tools"),
        })
    }

    /// # Errors
    /// `wrong_type` for fields that are no messages, or conversations that do not end with different messages of the
    /// assistant.
    fn into_row(self) -> Result<ValidRow, Diagnostic> {
        let prompt_messages =
            self.prompt.map(|prompt| messages_or_text(prompt, "prompt", "user")).transpose()?.unwrap_or_default();
        let [chosen, rejected] = [(self.chosen, "chosen"), (self.rejected, "rejected")].map(|(field, name)| {
            messages_or_text(field, name, ASSISTANT_ROLE)
                .and_then(|messages| with_prompt(&prompt_messages, messages, name))
        });
        let (mut chosen, mut rejected) = (chosen?, rejected?);
        let common_prefix = chosen.iter().zip(&rejected).take_while(|(one, other)| is_same_message(one, other)).count();
        if common_prefix == chosen.len() || common_prefix == rejected.len() {
            return Err(wrong_type("`chosen` and `rejected` are the same, or one is the beginning of the other"));
        }
        // Messages that both conversations have are not learned.
        for messages in [&mut chosen, &mut rejected] {
            messages[..common_prefix].iter_mut().for_each(|message| *message = message.with_field("weight", 0));
        }
        let tools = parse_tools(self.tools)?;
        let [chosen, rejected] = [chosen, rejected].map(|messages| Conversation { messages, tools: tools.clone() });
        let raw_fields = [self.prompt.map(RawValue::get), Some(self.chosen.get()), Some(self.rejected.get())];
        Ok(ValidRow {
            duplicate_key: DuplicateKey::whole_row(&raw_fields),
            text: String::new(),
            text_pair: None,
            target: Target::ConversationPreference { chosen, rejected },
            trimmed_fields: Vec::new(),
            warning: None,
        })
    }
}

/// Whether two messages are equal apart from their weights.
fn is_same_message(left: &Message, right: &Message) -> bool {
    left.with_field("weight", 0) == right.with_field("weight", 0)
}

/// Messages; a text becomes one message of `role`.
fn messages_or_text(value: &RawValue, field: &str, role: &str) -> Result<Vec<Message>, Diagnostic> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => Ok(vec![Message::new(role, text)]),
        Err(_) => parse_messages(value, field),
    }
}

/// Prompt followed by the answer. An answer that does not begin with a message of the assistant is a whole conversation and
/// must begin with the prompt.
fn with_prompt(prompt: &[Message], answer: Vec<Message>, field: &str) -> Result<Vec<Message>, Diagnostic> {
    if answer.last().is_none_or(|last| last.role() != ASSISTANT_ROLE) {
        return Err(wrong_type(format!("`{field}` has to end with a message of the assistant's")));
    }
    if answer[0].role() == ASSISTANT_ROLE {
        return Ok([prompt, &answer].concat());
    }
    let starts_with_prompt =
        answer.len() >= prompt.len() && prompt.iter().zip(&answer).all(|(one, other)| is_same_message(one, other));
    match starts_with_prompt {
        true => Ok(answer),
        false => {
            let advice = "begin it with the assistant's message, or with the whole prompt";
            Err(wrong_type(format!("`{field}` begins with neither: {advice}")))
        }
    }
}

const MESSAGE_EXAMPLE: &str = "{\"role\": \"user\", \"content\": \"…\"}";

/// Largest number of messages of a conversation.
const MAX_MESSAGES: usize = 256;

pub(super) struct Messages;

impl RowFormat for Messages {
    fn read_cells(&self, _cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        Err(needs_json("messages"))
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let raw_messages = object.required("messages", &mapping.target_column)?;
        let messages = parse_messages(raw_messages, "messages")?;
        let tools = parse_tools(object.get("tools"))?;
        Ok(ValidRow {
            duplicate_key: DuplicateKey::whole_row(&[Some(raw_messages.get())]),
            text: String::new(),
            text_pair: None,
            target: Target::Conversation(Conversation { messages, tools }),
            trimmed_fields: Vec::new(),
            warning: None,
        })
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

pub(super) fn parse_tools(tools: Option<&RawValue>) -> Result<Option<Json>, Diagnostic> {
    let parse = |tools: &RawValue| match tools.get().starts_with('[') {
        true => {
            serde_json::from_str(tools.get()).map_err(|error| wrong_type(format!("`tools` cannot be read: {error}")))
        }
        false => Err(wrong_type("`tools` has to be a list of tools")),
    };
    tools.map(parse).transpose()
}

/// Parses a list of messages; content that is a list of text parts becomes one text.
pub(super) fn parse_messages(messages: &RawValue, field: &str) -> Result<Vec<Message>, Diagnostic> {
    let raw_messages: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| wrong_type(format!("`{field}` has to be a list of objects like {MESSAGE_EXAMPLE}")))?;
    if raw_messages.len() > MAX_MESSAGES {
        return Err(wrong_type(format!(
            "there are {} messages, and {MAX_MESSAGES} are read at most: shorten it",
            raw_messages.len()
        )));
    }
    raw_messages.into_iter().zip(1..).map(|(message, number)| parse_message(message, number)).collect()
}

fn parse_message(message: &RawValue, number: usize) -> Result<Message, Diagnostic> {
    let parsed: Message = serde_json::from_str(message.get()).map_err(|error| {
        wrong_type(format!("message {number} has to be an object like {MESSAGE_EXAMPLE} ({error})"))
    })?;
    let flattened = parsed
        .with_flattened_content()
        .map_err(|part| wrong_type(format!("message {number} has a part of the type {part}: only text is read")))?;
    let is_valid_weight = |weight: f64| weight == 0.0 || weight == 1.0;
    match flattened.field("weight") {
        Some(weight) if !f64::try_from(weight.clone()).is_ok_and(is_valid_weight) => {
            Err(wrong_type(format!("the `weight` of message {number} has to be 0 or 1")))
        }
        _ => Ok(flattened),
    }
}
