//! Input of a response: a text or a list of items, as messages of the chat template.

use espalier_core::error::{Error, Result};
use espalier_core::model::chat::{ASSISTANT_ROLE, DEVELOPER_ROLE, Message, SYSTEM_ROLE, TOOL_ROLE, USER_ROLE};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// Text of the user, or a list of items.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of items")]
pub enum ResponsesInput {
    Text(String),
    #[schema(value_type = Vec<Object>)]
    Items(Vec<Map<String, Value>>),
}

/// Messages of the instructions and the input.
///
/// # Errors
/// `Invalid` for an item or a part of a message that is not supported, with a pointer to it.
pub fn to_messages(instructions: Option<&str>, input: ResponsesInput) -> Result<Vec<Message>> {
    let mut messages: Vec<Value> = Vec::new();
    messages.extend(instructions.map(|text| json!({"role": SYSTEM_ROLE, "content": text})));
    match input {
        ResponsesInput::Text(text) => messages.push(json!({"role": USER_ROLE, "content": text})),
        ResponsesInput::Items(items) => {
            for (index, item) in items.iter().enumerate() {
                add_item(&mut messages, item, &format!("/input/{index}"))?;
            }
        }
    }
    let to_message = |message: Value| {
        let message: Message = serde_json::from_value(message).map_err(Error::internal)?;
        // Templates read arguments that are parsed.
        message.with_tool_calls().map_err(|reason| Error::invalid_field("/input", reason))
    };
    messages.into_iter().map(to_message).collect()
}

fn add_item(messages: &mut Vec<Value>, item: &Map<String, Value>, pointer: &str) -> Result<()> {
    let kind = match item.get("type") {
        None | Some(Value::Null) => "message",
        Some(kind) => kind.as_str().unwrap_or_default(),
    };
    match kind {
        "message" => messages.push(message(item, pointer)?),
        "function_call" => add_function_call(messages, item, pointer)?,
        "function_call_output" => {
            let content = text_of(item.get("output"), &format!("{pointer}/output"))?;
            messages.push(json!({"role": TOOL_ROLE, "tool_call_id": item.get("call_id"), "content": content}));
        }
        "item_reference" => {
            return Err(unsupported(
                pointer,
                "responses are not stored here: send the item itself instead of a reference",
            ));
        }
        other => {
            let advice = "send messages, function_call and function_call_output";
            return Err(unsupported(pointer, &format!("items of the type \"{other}\" are not supported: {advice}")));
        }
    }
    Ok(())
}

fn message(item: &Map<String, Value>, pointer: &str) -> Result<Value> {
    let Some(role @ (USER_ROLE | ASSISTANT_ROLE | SYSTEM_ROLE | DEVELOPER_ROLE)) =
        item.get("role").and_then(Value::as_str)
    else {
        let message = "must be \"user\", \"assistant\", \"system\" or \"developer\"";
        return Err(Error::invalid_field(format!("{pointer}/role"), message));
    };
    let content = text_of(item.get("content"), &format!("{pointer}/content"))?;
    Ok(json!({"role": role, "content": content}))
}

/// Adds a call to the message of the assistant before it, which it is a part of.
fn add_function_call(messages: &mut Vec<Value>, item: &Map<String, Value>, pointer: &str) -> Result<()> {
    let text_field = |name: &str| match item.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => Err(Error::invalid_field(format!("{pointer}/{name}"), "must be a text")),
    };
    let function = json!({"name": text_field("name")?, "arguments": text_field("arguments")?});
    let call = json!({"id": text_field("call_id")?, "type": "function", "function": function});
    if !messages.last().is_some_and(|last| last["role"] == ASSISTANT_ROLE) {
        messages.push(json!({"role": ASSISTANT_ROLE, "content": ""}));
    }
    if let Some(last) = messages.last_mut() {
        match last["tool_calls"].as_array_mut() {
            Some(calls) => calls.push(call),
            None => last["tool_calls"] = json!([call]),
        }
    }
    Ok(())
}

/// A text, or the joined texts of a list of parts.
fn text_of(content: Option<&Value>, pointer: &str) -> Result<String> {
    match content {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().map(|(index, part)| part_text(part, &format!("{pointer}/{index}"))).collect()
        }
        _ => Err(Error::invalid_field(pointer, "must be a text, or a list of parts")),
    }
}

fn part_text(part: &Value, pointer: &str) -> Result<String> {
    let text = match part["type"].as_str() {
        Some("input_text" | "output_text" | "text") => part["text"].as_str(),
        Some("refusal") => part["refusal"].as_str(),
        kind => {
            let kind = kind.unwrap_or("unknown");
            return Err(unsupported(pointer, &format!("parts of the type \"{kind}\" are not supported: send text")));
        }
    };
    text.map(str::to_string).ok_or_else(|| Error::invalid_field(format!("{pointer}/text"), "must be a text"))
}

fn unsupported(pointer: &str, message: &str) -> Error {
    Error::Invalid(espalier_core::error::Problem::at_field("unsupported_field", pointer, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(input: Value) -> Result<Value> {
        let messages = to_messages(Some("be short"), serde_json::from_value(input).unwrap())?;
        Ok(serde_json::to_value(&messages).unwrap())
    }

    #[test]
    fn items_become_messages() {
        let system = json!({"role": "system", "content": "be short"});
        assert_eq!(messages(json!("hi")).unwrap(), json!([system, {"role": "user", "content": "hi"}]));
        let items = json!([
            {"role": "developer", "content": "a"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "b"}, {"type": "input_text", "text": "c"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "text": "d", "annotations": []}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"x\": 1}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": ""},
            {"type": "function_call_output", "call_id": "1", "output": "e"},
        ]);
        let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let expected = json!([
            system,
            {"role": "developer", "content": "a"},
            {"role": "user", "content": "bc"},
            {"role": "assistant", "content": "d", "tool_calls": [call("1", "f", json!({"x": 1})), call("2", "g", json!({}))]},
            {"role": "tool", "tool_call_id": "1", "content": "e"},
        ]);
        assert_eq!(messages(items).unwrap(), expected);
    }

    #[test]
    fn other_items_are_refused_by_their_place() {
        for (item, pointer) in [
            (json!({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}), "/input/0/content/0"),
            (json!({"role": "wizard", "content": "a"}), "/input/0/role"),
            (json!({"role": "user"}), "/input/0/content"),
            (json!({"type": "item_reference", "id": "msg_1"}), "/input/0"),
            (json!({"type": "web_search_call", "id": "1"}), "/input/0"),
            (json!({"type": "function_call", "call_id": "1", "arguments": "{}"}), "/input/0/name"),
        ] {
            let Err(Error::Invalid(problem)) = messages(json!([item])) else { panic!("{item}") };
            let location = format!("{:?}", problem.errors[0].location);
            assert!(location.contains(pointer), "{item}: {location}");
        }
    }
}
