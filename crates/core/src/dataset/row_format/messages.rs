//! Messages of a conversation, in the forms of OpenAI, ShareGPT and LLaMA-Factory.
//!
//! Every message becomes one of the roles that chat templates have: system, user, assistant or tool.

use crate::dataset::diagnostics::{self, Diagnostic, quote};
use crate::dataset::field_value::{FieldValue, wrong_type};
use crate::dataset::value_kind::Kind;
use crate::model::chat::{ASSISTANT_ROLE, Json, Message, SYSTEM_ROLE, TOOL_ROLE, USER_ROLE};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

const MESSAGE_EXAMPLE: &str = "{\"role\": \"user\", \"content\": \"…\"}";

/// Largest number of messages of a conversation.
const MAX_MESSAGES: usize = 256;

/// The list, message or object with `messages` in a field; `None` for a text.
pub(super) fn messages_value<'r>(value: &'r FieldValue<'_>) -> Option<Cow<'r, RawValue>> {
    let is_text = value.as_text("").is_ok();
    // A text may hold JSON that is no conversation.
    value.as_structure().filter(|_| !is_text || Kind::of(value) == Kind::Messages)
}

/// Messages of a field; a text becomes one message of `role`.
pub(super) fn messages_or_text(value: &FieldValue<'_>, field: &str, role: &str) -> Result<Vec<Message>, Diagnostic> {
    match messages_value(value) {
        Some(messages) => parse_messages(&messages, field),
        None => Ok(vec![Message::new(role, value.as_text(field)?.into_owned())]),
    }
}

/// Tools of a field of this name: a list, or the JSON text of one. No tools are `None`.
pub(super) fn parse_tools(name: &str, value: Option<&FieldValue<'_>>) -> Result<Option<Json>, Diagnostic> {
    let Some(value) = value.filter(|value| !value.source().trim_matches('"').trim().is_empty()) else {
        return Ok(None);
    };
    let list = value.as_structure().filter(|list| list.get().starts_with('['));
    let Some(list) = list else {
        return Err(wrong_type(format!("`{name}` has to be a list of tools, or the JSON text of one")));
    };
    let parse_error = |error: serde_json::Error| wrong_type(format!("`{name}` cannot be read: {error}"));
    if name == "functions" {
        let functions: Vec<Json> = serde_json::from_str(list.get()).map_err(parse_error)?;
        let tools: Vec<Json> = functions.into_iter().map(function_tool).collect();
        return Ok(Some(Json::from(tools)).filter(|tools| tools.len() != Some(0)));
    }
    let tools: Json = serde_json::from_str(list.get()).map_err(parse_error)?;
    Ok(Some(tools).filter(|tools| tools.len() != Some(0)))
}

/// Parses a list of messages, one message, or the `messages` of an object.
pub(super) fn parse_messages(value: &RawValue, field: &str) -> Result<Vec<Message>, Diagnostic> {
    let expected = || wrong_type(format!("`{field}` has to be a list of objects like {MESSAGE_EXAMPLE}"));
    if value.get().starts_with('{') {
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(value.get()).map_err(|_| expected())?;
        return match fields.get("messages") {
            Some(messages) if messages.get().starts_with('[') => parse_messages(messages, field),
            Some(_) => Err(expected()),
            None => Ok(vec![parse_message(value, 1)?]),
        };
    }
    let raw_messages: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| expected())?;
    if raw_messages.len() > MAX_MESSAGES {
        return Err(wrong_type(format!(
            "there are {} messages, and {MAX_MESSAGES} are read at most: shorten it",
            raw_messages.len()
        )));
    }
    raw_messages.into_iter().zip(1..).map(|(message, number)| parse_message(message, number)).collect()
}

fn parse_message(message: &RawValue, number: usize) -> Result<Message, Diagnostic> {
    let fields: Json =
        serde_json::from_str(message.get()).map_err(|error| not_a_message(number, &error.to_string()))?;
    let renamed = with_usual_names(fields, number)?;
    let parsed = Message::try_from(renamed).map_err(|error| not_a_message(number, error))?;
    let flattened = parsed
        .with_flattened_content()
        .map_err(|part| wrong_type(format!("message {number} has a part of the type {part}: only text is read")))?;
    let is_valid_weight = |weight: f64| weight == 0.0 || weight == 1.0;
    if let Some(weight) = flattened.field("weight")
        && !f64::try_from(weight).is_ok_and(is_valid_weight)
    {
        return Err(wrong_type(format!("the `weight` of message {number} has to be 0 or 1")));
    }
    let called = flattened.with_tool_calls().map_err(|reason| wrong_type(format!("message {number}: {reason}")))?;
    let is_empty_answer = called.role() == ASSISTANT_ROLE
        && called.field("tool_calls").is_none()
        && called.content().is_some_and(|content| content.as_str().is_some_and(|text| text.trim().is_empty()));
    match (called.content().filter(|_| !is_empty_answer), called.field("tool_calls")) {
        (Some(_), _) => Ok(called),
        (None, Some(_)) => Ok(called.with_field("content", "")),
        (None, None) => {
            let message = format!("message {number} has no content: fill it in, or leave the row out");
            Err(Diagnostic::new(diagnostics::EMPTY_TEXT, message))
        }
    }
}

fn not_a_message(number: usize, reason: &str) -> Diagnostic {
    wrong_type(format!("message {number} has to be an object like {MESSAGE_EXAMPLE} ({reason})"))
}

/// Fields with the names `role` and `content`, and a role that chat templates have.
fn with_usual_names(fields: Json, number: usize) -> Result<Json, Diagnostic> {
    let field = |name: &str| fields.get_attr(name).ok().filter(|value| !value.is_undefined());
    let role_name = if field("role").is_none() { "from" } else { "role" };
    let content_name = if field("content").is_none() && field("value").is_some() { "value" } else { "content" };
    let Some(role) = field(role_name).as_ref().and_then(Json::as_str).map(str::to_string) else { return Ok(fields) };
    let content = field(content_name);
    let call = match role.as_str() {
        "function_call" | "tool_call" => Some(written_calls(content.as_ref(), number)?),
        _ => None,
    };
    let usual_role = if call.is_some() { ASSISTANT_ROLE } else { usual_role(&role) };
    if (role_name, content_name) == ("role", "content") && role == usual_role && call.is_none() {
        return Ok(fields);
    }
    let names = fields.try_iter().into_iter().flatten();
    let others = names.filter(|name| !matches!(name.as_str(), Some(name) if name == role_name || name == content_name));
    let others = others.map(|name| {
        let value = fields.get_item(&name).unwrap_or_default();
        (name, value)
    });
    let role = (Json::from("role"), Json::from(usual_role));
    let content = match call {
        Some(calls) => Some((Json::from("tool_calls"), calls)),
        None => content.map(|content| (Json::from("content"), content)),
    };
    Ok(Json::from_pairs(std::iter::once(role).chain(content).chain(others)))
}

/// Role in chat templates for the role's name in other datasets; unknown roles are left to the template.
fn usual_role(role: &str) -> &str {
    match role.to_lowercase().as_str() {
        "human" | "user" | "prompter" => USER_ROLE,
        "gpt" | "assistant" | "bot" | "chatbot" | "ai" | "model" | "chatgpt" | "bing" | "bard" => ASSISTANT_ROLE,
        "system" | "developer" => SYSTEM_ROLE,
        "tool" | "function" | "observation" | "function_response" | "tool_response" => TOOL_ROLE,
        _ => role,
    }
}

/// Tool calls that a message of the role `function_call` has as the JSON text of its content.
fn written_calls(content: Option<&Json>, number: usize) -> Result<Json, Diagnostic> {
    let text = content.and_then(Json::as_str).unwrap_or_default().trim();
    let calls: Option<Vec<Json>> = match text.starts_with('[') {
        true => serde_json::from_str(text).ok(),
        false => serde_json::from_str(text).ok().map(|call| vec![call]),
    };
    let has_name = |call: &Json| call.get_attr("name").is_ok_and(|name| name.as_str().is_some());
    match calls.filter(|calls| !calls.is_empty() && calls.iter().all(has_name)) {
        Some(calls) => Ok(Json::from(calls.into_iter().map(function_tool).collect::<Vec<Json>>())),
        None => Err(wrong_type(format!(
            "message {number} calls a function, and its text is {}, not an object like {{\"name\": \"…\", \"arguments\": {{}}}}",
            quote(text)
        ))),
    }
}

/// Tool or tool call of a function.
fn function_tool(function: Json) -> Json {
    Json::from_pairs([(Json::from("type"), Json::from("function")), (Json::from("function"), function)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(messages: &str) -> Result<Vec<serde_json::Value>, String> {
        let raw = serde_json::value::RawValue::from_string(messages.to_string()).unwrap();
        let messages = parse_messages(&raw, "messages").map_err(|error| error.message)?;
        Ok(messages.iter().map(|message| serde_json::to_value(message).unwrap()).collect())
    }

    #[test]
    fn roles_of_other_datasets_are_renamed() {
        let parsed = parse(
            r#"[{"from": "system", "value": "s"}, {"from": "human", "value": "h"}, {"from": "gpt", "value": "g"},
                {"role": "developer", "content": "d"}, {"role": "human", "content": "h"}, {"role": "critic", "content": "c"},
                {"role": "Chatbot", "value": "b"}]"#,
        );
        let roles: Vec<_> =
            parsed.unwrap().into_iter().map(|message| (message["role"].clone(), message["content"].clone())).collect();
        let expected = [
            ("system", "s"),
            ("user", "h"),
            ("assistant", "g"),
            ("system", "d"),
            ("user", "h"),
            ("critic", "c"),
            ("assistant", "b"),
        ];
        assert_eq!(roles, expected.map(|(role, content)| (role.into(), content.into())));
    }

    #[test]
    fn function_calls_become_tool_calls() {
        let calls = |messages: &str| parse(messages).unwrap().pop().unwrap();
        let expected = serde_json::json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
        for message in [
            r#"[{"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"}]"#,
            r#"[{"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{\"x\": 1}"}}]"#,
            r#"[{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]"#,
        ] {
            let message = calls(message);
            assert_eq!((&message["tool_calls"], &message["content"]), (&expected, &"".into()), "{message}");
            assert_eq!(message.get("function_call"), None);
        }
        assert_eq!(calls(r#"[{"from": "observation", "value": "7"}]"#)["role"], "tool");
    }

    #[test]
    fn unusable_messages_are_refused_by_number() {
        for (messages, part) in [
            (r#"[{"role": "assistant", "content": null}]"#, "message 1 has no content"),
            (r#"[{"role": "assistant", "content": " "}]"#, "message 1 has no content"),
            (r#"[{"role": "user", "content": [{"type": "image_url"}]}]"#, "a part of the type \"image_url\""),
            (r#"[{"role": "user", "content": "a", "weight": 0.5}]"#, "`weight` of message 1"),
            (r#"[{"content": "a"}]"#, "message 1 has to be an object"),
            (r#"[{"from": "function_call", "value": "call f"}]"#, "message 1 calls a function"),
            (r#"[7]"#, "message 1 has to be an object"),
            (r#"{"messages": 7}"#, "has to be a list"),
        ] {
            let message = parse(messages).unwrap_err();
            assert!(message.contains(part), "{messages}: {message}");
        }
    }

    #[test]
    fn tools_may_be_json_text() {
        let tools = |name: &str, text: &str| {
            parse_tools(name, Some(&FieldValue::Cell(text.to_string().into())))
                .map(|tools| tools.map(|tools| tools.to_string()))
        };
        assert_eq!(tools("tools", "[]").unwrap(), None);
        assert_eq!(tools("tools", "").unwrap(), None);
        assert!(tools("tools", r#"[{"type": "function"}]"#).unwrap().is_some());
        assert!(tools("functions", r#"[{"name": "f"}]"#).unwrap().unwrap().contains("function"));
        assert!(tools("tools", "look").is_err());
    }
}
