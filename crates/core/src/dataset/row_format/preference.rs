//! Rows of a prompt with a preferred and a rejected answer: texts, or conversations in the forms of TRL, OpenAI and LLaMA-Factory.

use super::conversation::{conversation_row, prompt_messages, prompt_text, system_source, tools_of, with_system};
use super::messages::{messages_or_text, messages_value, parse_tools};
use super::{FieldChecks, Fields, FileStats, RowFormat, second_text};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::field_value::{FieldValue, wrong_type};
use crate::dataset::record::Record;
use crate::dataset::row::{UnusableRow, ValidRow};
use crate::model::chat::{ASSISTANT_ROLE, Json, Message};
use crate::task::{Conversation, Target};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) struct Preference;

impl RowFormat for Preference {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        if let Some(conversations) = ConversationPair::from_record(record, mapping) {
            return Ok(conversations.into_row(record, mapping)?);
        }
        let fields = Fields::of(record, mapping)?;
        let rejected = fields.second_text("rejected")?;
        let prompt = prompt_text(record, mapping, fields.text);
        let (prompt, chosen) = UnusableRow::both(prompt, fields.target.as_text("chosen"))?;
        text_row(prompt, chosen, rejected)
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

/// White space is part of a prompt and of its answers, and is kept.
fn text_row(
    prompt: Cow<'_, str>,
    chosen: Cow<'_, str>,
    rejected: Option<Cow<'_, str>>,
) -> Result<ValidRow, UnusableRow> {
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
struct ConversationPair<'r, 'a> {
    prompt: Option<&'r FieldValue<'a>>,
    chosen: &'r FieldValue<'a>,
    rejected: &'r FieldValue<'a>,
}

impl<'r, 'a> ConversationPair<'r, 'a> {
    /// `None` if the row has no messages, system message or tools, or lacks a field. It is then read as texts.
    fn from_record(record: &'r Record<'a>, mapping: &ColumnMapping) -> Option<Self> {
        let (prompt, chosen) = (record.get(&mapping.text_column), record.get(&mapping.target_column)?);
        let rejected = second_text(record, mapping).ok()??;
        let has_messages = |value: &FieldValue<'_>| messages_value(value).is_some();
        let has_tools = tools_of(record, mapping).is_ok_and(|tools| tools.is_some());
        let is_conversation = mapping.system.is_some()
            || has_tools
            || has_messages(chosen)
            || has_messages(rejected)
            || prompt.is_some_and(has_messages);
        (is_conversation && (prompt.is_some() || has_messages(chosen))).then_some(Self { prompt, chosen, rejected })
    }

    /// # Errors
    /// `wrong_type` for fields that are no messages, or conversations that do not end with different messages of the
    /// assistant.
    fn into_row(self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, Diagnostic> {
        let prompt = self.prompt.map(|prompt| prompt_messages(record, mapping, prompt)).transpose()?;
        let prompt = prompt.unwrap_or_default();
        let [chosen, rejected] = [(self.chosen, "chosen"), (self.rejected, "rejected")].map(|(value, name)| {
            let answer = messages_or_text(value, name, ASSISTANT_ROLE)?;
            with_system(record, mapping, with_prompt(&prompt, answer, name)?)
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
        let tools = match tools_of(record, mapping)? {
            Some(tools) => Some(tools),
            None => self.prompt.map(prompt_tools).transpose()?.flatten(),
        };
        let [chosen, rejected] = [chosen, rejected].map(|messages| Conversation { messages, tools: tools.clone() });
        let sources = [
            self.prompt.map(FieldValue::source),
            Some(self.chosen.source()),
            Some(self.rejected.source()),
            system_source(record, mapping),
        ];
        Ok(conversation_row(Target::ConversationPreference { chosen, rejected }, &sources))
    }
}

/// Tools of OpenAI's `input`, an object with `messages` and `tools`.
fn prompt_tools(prompt: &FieldValue<'_>) -> Result<Option<Json>, Diagnostic> {
    let Some(object) = prompt.as_structure().filter(|structure| structure.get().starts_with('{')) else {
        return Ok(None);
    };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(object.get()).unwrap_or_default();
    let tools = fields.get("tools").map(|tools| FieldValue::Json(tools)).filter(|tools| !tools.is_null());
    parse_tools("tools", tools.as_ref())
}

/// Whether two messages are equal apart from their weights.
fn is_same_message(left: &Message, right: &Message) -> bool {
    left.with_field("weight", 0) == right.with_field("weight", 0)
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
