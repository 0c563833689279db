//! Tests of parsing generation requests.

use super::{GenerateInput, GenerateRequest};
use crate::http::json;

fn parse_error(body: &str) -> (String, String) {
    let error = json::parse::<GenerateRequest>(body.as_bytes()).unwrap_err();
    let pointer = serde_json::to_value(&error.field_errors[0]).unwrap()["pointer"].as_str().unwrap().to_string();
    (pointer, error.detail)
}

#[test]
fn an_input_is_a_text_or_a_conversation() {
    let body = br#"{"inputs": ["a", {"messages": [{"role": "user", "content": "b"}]}], "temperature": 0.5}"#;
    let request: GenerateRequest = json::parse(body).unwrap();
    let [GenerateInput::Text(text), GenerateInput::Conversation(conversation)] = &request.inputs[..] else {
        panic!("{:?}", request.inputs)
    };
    assert_eq!((text.as_str(), conversation.messages[0].role().as_str()), ("a", "user"));
    assert_eq!(request.sampling.temperature, Some(0.5));
}

#[test]
fn a_wrong_field_is_located_by_its_pointer() {
    for (body, pointer, words) in [
        (r#"{"inputs": ["a"], "warmth": 1}"#, "/warmth", "unknown field"),
        (r#"{"inputs": ["a"], "temperature": "hot"}"#, "/temperature", "must be a number, not the string \"hot\""),
        (r#"{"inputs": ["a"], "logit_bias": {"3": "x"}}"#, "/logit_bias/3", "must be a number"),
        (r#"{"inputs": ["a"], "max_tokens": -1}"#, "/max_tokens", "must be a whole number"),
        (r#"{"inputs": [{"messages": [], "x": 1}]}"#, "/inputs/0/x", "unknown field `x`, expected `messages`"),
        (r#"{"inputs": ["a", {"messages": "b"}]}"#, "/inputs/1/messages", "must be a list"),
        (r#"{"inputs": [{}]}"#, "/inputs/0", "missing field `messages`"),
        (r#"{"inputs": [3]}"#, "/inputs/0", "must be a text, or an object with \"messages\""),
        (r#"{"temperature": 1}"#, "", "missing field `inputs`"),
    ] {
        let (found, detail) = parse_error(body);
        assert_eq!(found, pointer, "{body}: {detail}");
        assert!(detail.contains(words), "{detail} should say {words}");
    }
}
