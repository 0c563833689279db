//! Texts that the grammars of tool calls accept, token by token, in every syntax.

use super::*;
use crate::serving::generation::constraint::ConstraintFactory;
use crate::serving::generation::token_encoding::TokenByteEncoding;
use espalier_core::model::BaseModel;
use espalier_core::model::chat::tool_calls::{GRANITE, HERMES, LLAMA3, MISTRAL};
use espalier_tensor::backend::cpu::CpuBackend;
use std::sync::{Arc, LazyLock};

static BASE: LazyLock<Arc<BaseModel>> = LazyLock::new(|| {
    let folder = espalier_testing::jobs::fixture("decoders").join("llama");
    Arc::new(BaseModel::load(&folder, "llama", Arc::new(CpuBackend::detect())).unwrap())
});

static FACTORY: LazyLock<ConstraintFactory> = LazyLock::new(|| {
    let token_encoding = TokenByteEncoding::detect(|token| BASE.tokenizer().token_to_id(token).is_some());
    ConstraintFactory::new(Arc::clone(&BASE), token_encoding)
});

/// The syntax of Hermes with a marker that is a special token of the fixture.
static SPECIAL: ToolCallSyntax =
    ToolCallSyntax { start: "<|im_start|>", separator: "\n</tool_call>\n<|im_start|>\n", ..HERMES };

fn spec(syntax: &'static ToolCallSyntax, count: CallCount, other_text: OtherText) -> ConstraintSpec {
    let schema = json!({"type": "object", "properties": {"unit": {"enum": ["C", "F"]}, "days": {"$ref": "#/$defs/days"}},
        "required": ["unit"], "additionalProperties": false, "$defs": {"days": {"type": "integer"}}});
    let no_arguments = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tools = [("weather", schema), ("now", no_arguments)];
    let tool = |(name, parameters): (&str, Value)| ToolSpec {
        pointer: format!("/tools/{name}/parameters"),
        name: name.to_string(),
        parameters,
    };
    let tools = tools.into_iter().map(tool).collect();
    ConstraintSpec::ToolCalls(Box::new(ToolCallsSpec { syntax, tools, count, other_text }))
}

/// Whether the tokens of the text are allowed one after the other, and the end after them.
fn accepts(spec: &ConstraintSpec, text: &str) -> bool {
    let mut constraint = FACTORY.compile(spec).unwrap();
    let ids = BASE.tokenizer().encode_without_special_tokens(text).unwrap();
    for (id, remaining) in ids.iter().zip((0..ids.len()).rev()) {
        if !constraint.allowed_tokens().unwrap().is_allowed(*id) {
            return false;
        }
        if constraint.accept_token(*id).unwrap() {
            return remaining == 0;
        }
    }
    BASE.tokenizer().eos_ids().iter().all(|id| constraint.allowed_tokens().unwrap().is_allowed(*id))
}

fn written(syntax: &ToolCallSyntax, calls: &[(&str, &str)]) -> String {
    let calls: Vec<String> =
        calls.iter().map(|(name, arguments)| format!("{}{arguments}}}", syntax.call_head(name))).collect();
    let start = if syntax.start_is_optional { "" } else { syntax.start };
    format!("{start}{}{}{}", syntax.open, calls.join(syntax.separator), syntax.close)
}

const WEATHER: (&str, &str) = ("weather", "{\"unit\": \"C\", \"days\": 3}");

#[test]
fn required_calls_fit_their_schemas_in_every_syntax() {
    for syntax in [&HERMES, &LLAMA3, &MISTRAL, &GRANITE, &SPECIAL] {
        let many = spec(syntax, CallCount::Many, OtherText::Forbidden);
        let one = spec(syntax, CallCount::AtMost(1), OtherText::Forbidden);
        for spec in [&many, &one] {
            assert!(accepts(spec, &written(syntax, &[WEATHER])), "{syntax:?}");
            assert!(accepts(spec, &written(syntax, &[("now", "{}")])), "{syntax:?}");
            assert!(!accepts(spec, &written(syntax, &[("weather", "{\"unit\": \"K\"}")])), "{syntax:?}");
            assert!(!accepts(spec, &written(syntax, &[("weather", "{}")])), "{syntax:?}");
            assert!(!accepts(spec, &written(syntax, &[("later", "{}")])), "{syntax:?}");
            assert!(!accepts(spec, "Hello."), "{syntax:?}");
            assert!(!accepts(spec, ""), "{syntax:?}");
        }
        let two = written(syntax, &[WEATHER, ("now", "{}")]);
        assert!(accepts(&many, &two) && !accepts(&one, &two), "{syntax:?}");
        let at_most_two = spec(syntax, CallCount::AtMost(2), OtherText::Forbidden);
        let three = written(syntax, &[WEATHER, WEATHER, WEATHER]);
        assert!(accepts(&at_most_two, &two) && !accepts(&at_most_two, &three), "{syntax:?}");
    }
}

#[test]
fn free_text_may_stand_before_calls_and_without_them() {
    for syntax in [&HERMES, &MISTRAL, &SPECIAL] {
        let many = spec(syntax, CallCount::Many, OtherText::Free);
        let one = spec(syntax, CallCount::AtMost(1), OtherText::Free);
        let call = written(syntax, &[WEATHER]);
        for text in ["Hello, a < b {\"x\"}.".to_string(), call.clone(), format!("Let me see.\n{call}")] {
            assert!(accepts(&many, &text) && accepts(&one, &text), "{syntax:?}: {text}");
        }
        let more = format!("{call}\nAnd:\n{call} Done.");
        assert!(accepts(&many, &more) && !accepts(&one, &more), "{syntax:?}");
        let wrong = written(syntax, &[("weather", "{\"unit\": \"K\"}")]);
        assert!(!accepts(&many, &wrong) && !accepts(&one, &format!("Now {wrong}")), "{syntax:?}");
    }
    let llama = spec(&LLAMA3, CallCount::Many, OtherText::Free);
    for text in ["Hello {\"x\"}", "", "\nHi", &written(&LLAMA3, &[WEATHER, WEATHER])] {
        assert!(accepts(&llama, text), "{text}");
    }
    assert!(!accepts(&llama, "{\"name\": \"Ada\"}"));
}

#[test]
fn a_response_format_stands_instead_of_calls() {
    for syntax in [&HERMES, &LLAMA3, &MISTRAL, &SPECIAL] {
        let either = spec(syntax, CallCount::Many, OtherText::Format(ConstraintSpec::Regex("[0-9]+ /x".to_string())));
        assert!(accepts(&either, "42 /x") && accepts(&either, &written(syntax, &[WEATHER])), "{syntax:?}");
        assert!(!accepts(&either, "Hello.") && !accepts(&either, &written(syntax, &[("weather", "{}")])), "{syntax:?}");
    }
}

#[test]
fn a_schema_that_cannot_be_enforced_is_named() {
    let ConstraintSpec::ToolCalls(mut calls) = spec(&HERMES, CallCount::AtMost(1), OtherText::Forbidden) else {
        panic!()
    };
    calls.tools[1].parameters = json!({"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}});
    let error = FACTORY.compile(&ConstraintSpec::ToolCalls(calls)).err().unwrap();
    assert_eq!(error.code(), "invalid_format");
    assert!(error.to_string().starts_with("tools.now.parameters: "), "{error}");
    let format = OtherText::Format(ConstraintSpec::JsonSchema(json!({"$ref": "#/nowhere"})));
    let error = FACTORY.compile(&spec(&HERMES, CallCount::Many, format)).err().unwrap();
    assert!(error.to_string().starts_with("the schema cannot be used: "), "{error}");
}
