//! Tools and choices of requests, and what they mean for constraint and prompt.

use super::*;
use crate::http::openai::tool_definition::{self, ToolForm};
use espalier_core::error::Error;
use serde_json::json;
use std::collections::BTreeMap;

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            "strict": true}},
        {"type": "function", "function": {"name": "now", "description": null}},
    ])
}

fn definitions() -> Vec<ToolDefinition> {
    tool_definition::parse(tools().as_array().unwrap(), ToolForm::Nested).unwrap()
}

fn select(choice: Value, parallel: Option<bool>) -> Result<Option<CallableTools>> {
    CallableTools::select(definitions(), Some(&choice), parallel)
}

fn pointer(error: Error) -> String {
    let Error::Invalid(problem) = error else { panic!("{error}") };
    serde_json::to_value(&problem.errors[0]).unwrap()["pointer"].as_str().unwrap().to_string()
}

#[test]
fn definitions_are_checked_by_their_place() {
    let function = |function: Value| json!([{"type": "function", "function": function}]);
    for (tools, at) in [
        (json!([{"type": "custom", "custom": {"name": "a"}}]), "/tools/0/type"),
        (json!([3]), "/tools/0/function"),
        (function(json!({})), "/tools/0/function/name"),
        (function(json!({"name": "a b"})), "/tools/0/function/name"),
        (function(json!({"name": "a", "description": 3})), "/tools/0/function/description"),
        (function(json!({"name": "a", "strict": "yes"})), "/tools/0/function/strict"),
        (function(json!({"name": "a", "parameters": {"type": "array"}})), "/tools/0/function/parameters"),
        (
            function(json!({"name": "a", "parameters": {"properties": {"b": {"type": "text"}}}})),
            "/tools/0/function/parameters/properties/b/type",
        ),
        (json!([tools()[0], tools()[0]]), "/tools/1/function/name"),
    ] {
        assert_eq!(
            pointer(tool_definition::parse(tools.as_array().unwrap(), ToolForm::Nested).unwrap_err()),
            at,
            "{tools}"
        );
    }
}

#[test]
fn the_choice_selects_tools_and_constraints() {
    let selected = |choice: Value, parallel| {
        let tools = select(choice, parallel).unwrap()?;
        let names: Vec<String> = tools.definitions.iter().map(|tool| tool.name().to_string()).collect();
        Some((names.join(" "), tools.is_call_required, tools.count))
    };
    let function = json!({"type": "function", "function": {"name": "now"}});
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [function]}});
    let some = |names: &str, is_required, count| Some((names.to_string(), is_required, count));
    assert_eq!(selected(json!("none"), None), None);
    assert_eq!(selected(json!(null), None), some("weather now", false, CallCount::Many));
    assert_eq!(selected(json!("required"), None), some("weather now", true, CallCount::AtMost(2)));
    assert_eq!(selected(json!("required"), Some(false)), some("weather now", true, CallCount::AtMost(1)));
    assert_eq!(selected(function.clone(), None), some("now", true, CallCount::AtMost(1)));
    assert_eq!(selected(json!({"type": "function", "name": "now"}), None), some("now", true, CallCount::AtMost(1)));
    assert_eq!(selected(allowed, None), some("now", true, CallCount::AtMost(1)));
    for (choice, at) in [
        (json!("maybe"), "/tool_choice"),
        (json!({"type": "function", "function": {"name": "fly"}}), "/tool_choice/function/name"),
        (json!({"type": "custom"}), "/tool_choice/type"),
        (json!({}), "/tool_choice/type"),
        (json!({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "fly"}]}), "/tool_choice/tools/0/name"),
    ] {
        assert_eq!(pointer(select(choice.clone(), None).unwrap_err()), at, "{choice}");
    }
    let without_tools = CallableTools::select(Vec::new(), Some(&json!("required")), None);
    assert_eq!(pointer(without_tools.unwrap_err()), "/tool_choice");
    assert_eq!(CallableTools::select(Vec::new(), Some(&json!("auto")), None).unwrap(), None);
}

#[test]
fn schemas_are_enforced_where_a_call_is_required_or_strict() {
    let template = |source: &str| ChatTemplate::new(source, BTreeMap::new()).unwrap();
    let hermes = template("{{ tools }} <tool_call>");
    let constraint = |choice: Value, parallel| {
        select(choice, parallel).unwrap().unwrap().into_output(&hermes, None).unwrap().constraint
    };
    let Some(ConstraintSpec::ToolCalls(required)) = constraint(json!("required"), None) else { panic!() };
    assert_eq!((&required.other_text, required.tools.len()), (&OtherText::Forbidden, 2));
    let Some(ConstraintSpec::ToolCalls(strict)) = constraint(json!("auto"), None) else { panic!() };
    assert_eq!(strict.other_text, OtherText::Free);
    assert_eq!(strict.tools[0].parameters["properties"]["city"]["type"], "string");
    assert_eq!(strict.tools[1].parameters, json!({"type": "object"}));
    let lenient = || CallableTools::select(definitions().split_off(1), None, None).unwrap().unwrap();
    assert_eq!(lenient().into_output(&hermes, None).unwrap().constraint, None);
    let format = Some(ConstraintSpec::JsonObject);
    let Some(ConstraintSpec::ToolCalls(either)) = lenient().into_output(&hermes, format).unwrap().constraint else {
        panic!()
    };
    assert_eq!(either.other_text, OtherText::Format(ConstraintSpec::JsonObject));
    // Calls in an unknown syntax stay in the text, and a strict schema cannot be enforced.
    let unknown = template("{{ tools }} <|calls|>");
    assert!(lenient().into_output(&unknown, None).unwrap().parser.is_none());
    let refused = select(json!("auto"), None).unwrap().unwrap().into_output(&unknown, None);
    assert_eq!(pointer(refused.err().unwrap()), "/tools/0/function/strict");
}

#[test]
fn a_template_without_a_place_for_tools_takes_required_ones_in_the_system_message() {
    let template = ChatTemplate::new("{% for m in messages %}{{ m.content }}{% endfor %}", BTreeMap::new()).unwrap();
    let messages = || vec![Message::new("user", "a")];
    let add = |choice: Value| {
        let mut options = RenderOptions::default();
        let tools = select(choice, None).unwrap().unwrap();
        tools.add_to_prompt(&template, messages(), &mut options).map(|messages| (messages, options.tools))
    };
    assert_eq!(pointer(add(json!("auto")).unwrap_err()), "/tools");
    let (written, tools) = add(json!("required")).unwrap();
    assert!(tools.is_none() && written[0].content().unwrap().to_string().contains(r#""name":"weather""#));
}
