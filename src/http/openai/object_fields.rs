//! Fields of the objects inside a request in OpenAI's format, such as its messages: which are read, and which are not supported.

use super::field_check::FieldCheck;
use super::field_rules::{Rule, neutral};
use crate::http::error::ApiResult;
use espalier_core::error::json_pointer;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The objects at one place of a request, and their fields.
pub struct ObjectFields {
    /// Place, such as `messages.*.content.*`; `*` is every item of a list.
    pub path: &'static str,
    /// Fields that are read.
    pub read: &'static [&'static str],
    pub unknown: UnknownFields,
    /// Other fields that clients send.
    pub other: &'static [(&'static str, Rule)],
}

/// Reader of the fields that no list names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    Unread,
    /// The chat template, if a word of its source is the field's name.
    ChatTemplate,
    /// The request's own parser, which refuses unknown ones.
    Parser,
}

/// Objects of requests for chat completions.
pub const CHAT_OBJECTS: &[ObjectFields] = &[
    ObjectFields {
        path: "messages.*",
        read: &["role", "content", "tool_calls", "tool_call_id", "function_call", "refusal", "prefix"],
        unknown: UnknownFields::ChatTemplate,
        other: &[
            ("annotations", Rule::NoEffect),
            ("audio", Rule::Unsupported(neutral::never, "is not read: send its transcript as \"content\"")),
            ("cache_control", Rule::NoEffect),
            ("name", Rule::Hint(neutral::is_empty)),
        ],
    },
    ObjectFields {
        path: "messages.*.content.*",
        read: &["type", "text", "refusal"],
        unknown: UnknownFields::Unread,
        other: &[
            ("annotations", Rule::NoEffect),
            ("cache_control", Rule::NoEffect),
            ("prompt_cache_breakpoint", Rule::NoEffect),
        ],
    },
    ObjectFields {
        path: "tools.*",
        read: &["type", "function"],
        unknown: UnknownFields::Unread,
        other: &[("cache_control", Rule::NoEffect)],
    },
    STREAM_OPTIONS,
    ObjectFields { path: "chat_template_kwargs", read: &[], unknown: UnknownFields::ChatTemplate, other: &[] },
    ObjectFields { path: "response_format", read: &[], unknown: UnknownFields::Parser, other: &[] },
    ObjectFields { path: "response_format.json_schema", read: &[], unknown: UnknownFields::Parser, other: &[] },
];

/// Objects of requests for text completions.
pub const COMPLETION_OBJECTS: &[ObjectFields] = &[STREAM_OPTIONS];

/// Objects of requests for responses.
pub const RESPONSES_OBJECTS: &[ObjectFields] = &[
    ObjectFields {
        path: "input.*",
        read: &["type", "role", "content", "call_id", "name", "arguments", "output"],
        unknown: UnknownFields::Unread,
        // Ids and states of items that a response returned.
        other: &[
            ("async", Rule::Unsupported(neutral::is_false, "is not supported: send the output of the call")),
            ("caller", Rule::NoEffect),
            ("id", Rule::NoEffect),
            ("phase", Rule::NoEffect),
            ("status", Rule::NoEffect),
        ],
    },
    ObjectFields {
        path: "tools.*",
        read: &["type", "name", "description", "parameters", "strict"],
        unknown: UnknownFields::Unread,
        other: &[
            ("allowed_callers", Rule::Unsupported(neutral::is_empty, "is not supported: leave it out")),
            ("async", Rule::Unsupported(neutral::is_false, "is not supported: leave it out")),
            ("defer_loading", Rule::Unsupported(neutral::is_false, "there is no search for tools: leave it out")),
            // The form of an output, which the client sends.
            ("output_schema", Rule::Hint(neutral::never)),
        ],
    },
    ObjectFields { path: "input.*.content.*", ..INPUT_PART },
    ObjectFields { path: "input.*.output.*", ..INPUT_PART },
    ObjectFields { path: "text", read: &[], unknown: UnknownFields::Parser, other: &[] },
    ObjectFields { path: "text.format", read: &[], unknown: UnknownFields::Parser, other: &[] },
    ObjectFields { path: "chat_template_kwargs", read: &[], unknown: UnknownFields::ChatTemplate, other: &[] },
];

const INPUT_PART: ObjectFields = ObjectFields {
    path: "",
    read: &["type", "text", "refusal"],
    unknown: UnknownFields::Unread,
    other: &[
        ("annotations", Rule::NoEffect),
        ("logprobs", Rule::NoEffect),
        ("prompt_cache_breakpoint", Rule::NoEffect),
    ],
};

const STREAM_OPTIONS: ObjectFields = ObjectFields {
    path: "stream_options",
    read: &["include_usage"],
    unknown: UnknownFields::Unread,
    other: &[
        (
            "continuous_usage_stats",
            Rule::Unsupported(neutral::is_false, "is not supported: the last chunk has the token counts"),
        ),
        // Padding of chunks against observers of encrypted traffic.
        ("include_obfuscation", Rule::NoEffect),
    ],
};

impl ObjectFields {
    /// The request's field that holds the objects.
    pub fn request_field(&self) -> &'static str {
        self.path.split('.').next().unwrap_or_default()
    }

    /// Checks the objects inside `value`, the value of [`Self::request_field`], and removes the fields that are not read.
    ///
    /// # Errors
    /// `unsupported_field` with the place of a field that would change the answer.
    pub fn check(&self, value: &mut Value, check: &mut FieldCheck) -> ApiResult<()> {
        let steps: Vec<&str> = self.path.split('.').collect();
        self.check_below(value, &steps[1..], &json_pointer(&steps[..1]), check)
    }

    fn check_below(&self, value: &mut Value, steps: &[&str], place: &str, check: &mut FieldCheck) -> ApiResult<()> {
        match (steps.split_first(), value) {
            (None, Value::Object(fields)) => self.check_object(fields, place, check),
            (Some((&"*", rest)), Value::Array(items)) => {
                let check_item = |(index, item)| self.check_below(item, rest, &format!("{place}/{index}"), check);
                items.iter_mut().enumerate().try_for_each(check_item)
            }
            (Some((step, rest)), Value::Object(fields)) => match fields.get_mut(*step) {
                Some(inner) => self.check_below(inner, rest, &format!("{place}/{step}"), check),
                None => Ok(()),
            },
            // Values of other types get their errors from the typed parser.
            _ => Ok(()),
        }
    }

    fn check_object(&self, fields: &mut Map<String, Value>, place: &str, check: &mut FieldCheck) -> ApiResult<()> {
        let is_unread = |(name, value): &(&String, &Value)| !self.is_read(name, value, check);
        let unread: HashSet<String> = fields.iter().filter(is_unread).map(|(name, _)| name.clone()).collect();
        for name in &unread {
            let rule = self.other.iter().find(|(other, _)| other == name).map(|(_, rule)| *rule);
            let name_for_header = || format!("{}.{name}", self.path.replace(".*", ""));
            check.unread_field(&(place.to_string() + &json_pointer(&[name])), &fields[name], rule, name_for_header)?;
        }
        fields.retain(|name, _| !unread.contains(name));
        Ok(())
    }

    fn is_read(&self, name: &str, value: &Value, check: &FieldCheck) -> bool {
        self.read.contains(&name)
            || match self.unknown {
                UnknownFields::Unread => false,
                UnknownFields::ChatTemplate => check.template.is_some_and(|template| template.has_word(name)),
                UnknownFields::Parser => !value.is_null(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::model::chat::ChatTemplate;
    use serde_json::json;
    use std::collections::BTreeMap;

    /// The value without the fields that are not read, and the names of those that are ignored.
    fn check(objects: &[ObjectFields], mut value: Value, template: &str) -> ApiResult<(Value, Vec<String>)> {
        let template = ChatTemplate::new(template, BTreeMap::new()).unwrap();
        let mut check = FieldCheck::new(false, Some(&template));
        objects.iter().try_for_each(|objects| objects.check(&mut value, &mut check))?;
        Ok((value, check.ignored.into_iter().collect()))
    }

    fn messages() -> &'static [ObjectFields] {
        &CHAT_OBJECTS[..2]
    }

    #[test]
    fn fields_of_messages_are_read_by_the_template_or_named() {
        let sent = json!([
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}, "magic": 1}], "name": "n", "audio": null},
            {"role": "assistant", "thinking": "b", "content": null, "name": "n", "annotations": [{}]}
        ]);
        let kept = json!([
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "thinking": "b", "content": null}
        ]);
        let (read, ignored) = check(messages(), sent.clone(), "{{ messages[0].thinking }}").unwrap();
        assert_eq!((read, ignored), (kept, vec!["messages.content.magic".to_string(), "messages.name".to_string()]));
        let (_, ignored) = check(messages(), sent, "{{ messages[0].name }}").unwrap();
        assert_eq!(ignored, ["messages.content.magic", "messages.thinking"]);
    }

    #[test]
    fn a_field_that_would_change_the_answer_is_refused_with_its_place() {
        let sent =
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "audio": {"id": "a"}}]);
        let error = check(messages(), sent, "").unwrap_err();
        assert_eq!(error.code, "unsupported_field");
        assert_eq!(serde_json::to_value(&error.field_errors[0]).unwrap()["pointer"], "/messages/1/audio");
        assert!(check(COMPLETION_OBJECTS, json!({"continuous_usage_stats": true}), "").is_err());
    }

    #[test]
    fn nulls_are_removed_where_the_parser_checks_names() {
        let sent = json!({"type": "json_schema", "json_schema": {"schema": {}, "strict": null}, "other": null, "x": 1});
        let objects = CHAT_OBJECTS.iter().filter(|objects| objects.request_field() == "response_format");
        let (mut value, mut check) = (sent, FieldCheck::new(false, None));
        objects.for_each(|objects| objects.check(&mut value, &mut check).unwrap());
        assert_eq!(value, json!({"type": "json_schema", "json_schema": {"schema": {}}, "x": 1}));
        assert!(check.is_changed && check.ignored.is_empty());
    }
}
