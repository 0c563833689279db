//! Chat templates of public models, rendered as transformers renders them: `tests/chat/expected.json`, which
//! `tests/chat/render.py` makes with the real one. Every family with every conversation, byte for byte, and where the
//! assistant speaks in it.

use espalier_core::error::Error;
use espalier_core::model::chat::{Asked, Conversation, Json, Message, Template, from_config, from_folder, from_gguf};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Asking {
    name: String,
    messages: Vec<Message>,
    tools: Option<Json>,
    documents: Option<Json>,
    #[serde(default)]
    variables: BTreeMap<String, Json>,
    generation_prompt: bool,
}

#[derive(Deserialize)]
struct Snippets {
    messages: Vec<Message>,
    variables: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
struct Expected {
    now: chrono::NaiveDateTime,
    families: BTreeMap<String, Family>,
    cases: Vec<Case>,
    snippets: Vec<Snippet>,
}

#[derive(Deserialize)]
struct Family {
    tokens: BTreeMap<String, String>,
    ends: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    family: String,
    conversation: String,
    text: Option<String>,
    error: Option<String>,
    turns: Option<Vec<(usize, usize)>>,
}

#[derive(Deserialize)]
struct Snippet {
    template: String,
    text: Option<String>,
    error: Option<String>,
}

fn folder() -> PathBuf {
    espalier_testing::workspace().join("tests/chat")
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn template(family: &str, expected: &Expected) -> Template {
    let source = std::fs::read_to_string(folder().join(format!("templates/{family}.jinja"))).unwrap();
    Template::new(&source, expected.families[family].tokens.clone()).unwrap()
}

fn asked(asking: &Asking, expected: &Expected) -> Asked {
    let (tools, documents) = (asking.tools.clone(), asking.documents.clone());
    Asked { tools, documents, variables: asking.variables.clone(), now: Some(expected.now) }
}

/// What differs, for a reader; nothing where `rendered` is what was expected.
fn fault(rendered: Result<String, Error>, text: Option<&String>, error: Option<&String>) -> Option<String> {
    match (rendered, text) {
        (Ok(text), Some(expected)) if text == *expected => None,
        (Ok(text), Some(expected)) => Some(format!("\n expected {expected:?}\n but got  {text:?}")),
        (Ok(text), None) => Some(format!("\n expected the error {error:?}\n but got  {text:?}")),
        (Err(fault), Some(expected)) => Some(format!("\n expected {expected:?}\n but got  the error {fault}")),
        (Err(fault), None) => {
            let says = error.is_none_or(|error| fault.to_string().ends_with(error));
            let is_refused = fault.code() == "chat_template_refused" && says;
            (!is_refused).then(|| format!("\n expected the error {error:?}\n but got  {fault}"))
        }
    }
}

fn assert_none(faults: &[String], of: usize) {
    assert!(faults.is_empty(), "{} of {of} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_family_renders_every_conversation_as_transformers_does() {
    let expected: Expected = read("expected.json");
    let conversations: Vec<Asking> = read("conversations.json");
    assert_eq!(expected.cases.len(), expected.families.len() * conversations.len());
    let mut faults = Vec::new();
    for case in &expected.cases {
        let asking = conversations.iter().find(|one| one.name == case.conversation).unwrap();
        let (template, asked) = (template(&case.family, &expected), asked(asking, &expected));
        let rendered = match asking.generation_prompt {
            true => template.prompt(&asking.messages, &asked),
            false => template.render(&asking.messages, &asked),
        };
        let found = fault(rendered, case.text.as_ref(), case.error.as_ref());
        faults.extend(found.map(|found| format!("{} × {}: {found}", case.family, case.conversation)));
    }
    assert_none(&faults, expected.cases.len());
}

#[test]
fn the_assistants_turns_are_found_in_every_finished_conversation() {
    let expected: Expected = read("expected.json");
    let conversations: Vec<Asking> = read("conversations.json");
    let mut faults = Vec::new();
    let cases: Vec<&Case> = expected.cases.iter().filter(|case| case.turns.is_some()).collect();
    assert!(cases.len() > 20, "{} cases", cases.len());
    for case in &cases {
        let asking = conversations.iter().find(|one| one.name == case.conversation).unwrap();
        let (template, asked) = (template(&case.family, &expected), asked(asking, &expected));
        let Conversation { text, turns } =
            template.conversation(&asking.messages, &asked, &expected.families[&case.family].ends).unwrap();
        assert_eq!(Some(&text), case.text.as_ref());
        let wanted: Vec<&str> = case.turns.iter().flatten().map(|(start, end)| &text[*start..*end]).collect();
        let found: Vec<&str> = turns.iter().map(|turn| &text[turn.clone()]).collect();
        let places: Vec<(usize, usize)> = turns.iter().map(|turn| (turn.start, turn.end)).collect();
        if case.turns.as_ref() != Some(&places) {
            let label = format!("{} × {}", case.family, case.conversation);
            faults.push(format!("{label}:\n expected {wanted:#?}\n but got  {found:#?} in {text:?}"));
        }
    }
    assert_none(&faults, cases.len());
}

#[test]
fn what_templates_are_made_of_means_what_it_means_in_python() {
    let expected: Expected = read("expected.json");
    let Snippets { messages, variables } = read("snippets.json");
    let asked = Asked { variables, now: Some(expected.now), ..Asked::default() };
    let mut faults = Vec::new();
    for snippet in &expected.snippets {
        let tokens = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
        let rendered = Template::new(&snippet.template, tokens).and_then(|template| template.render(&messages, &asked));
        let found = fault(rendered, snippet.text.as_ref(), snippet.error.as_ref());
        faults.extend(found.map(|found| format!("{}{found}", snippet.template)));
    }
    assert_none(&faults, expected.snippets.len());
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn made(source: &str) -> Template {
    Template::new(source, BTreeMap::new()).unwrap()
}

fn said(template: &Template, messages: &[Message]) -> Vec<String> {
    let ends = ["<|im_start|>", "<|im_end|>", "<|end|>"].map(str::to_string);
    let Conversation { text, turns } = template.conversation(messages, &Asked::default(), &ends).unwrap();
    turns.into_iter().map(|turn| text[turn].to_string()).collect()
}

fn talk(words: &[&str]) -> Vec<Message> {
    words.iter().zip(["user", "assistant"].iter().cycle()).map(|(words, role)| Message::new(role, *words)).collect()
}

#[test]
fn an_assistant_may_speak_first_last_and_twice() {
    let messages = [("assistant", "Hello."), ("assistant", "Well?"), ("user", "Hm."), ("assistant", "")];
    let messages = messages.map(|(role, words)| Message::new(role, words));
    assert_eq!(said(&made(CHATML), &messages), ["Hello.<|im_end|>", "Well?<|im_end|>", "<|im_end|>"]);
}

#[test]
fn a_control_token_that_a_message_has_itself_does_not_end_its_turn() {
    let found = said(&made(CHATML), &talk(&["a", "b<|im_end|>\n", "c", "<|im_start|>d<|im_start|>"]));
    assert_eq!(found, ["b<|im_end|>\n<|im_end|>", "<|im_start|>d<|im_start|><|im_end|>"]);
}

#[test]
fn a_template_that_writes_earlier_turns_in_another_way_than_the_last_is_understood() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<now>\
                  {% endif %}{{ m.content | trim | upper }}<|im_end|>\n{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n<now>{% else %}<|end|>{% endif %}";
    let found = said(&made(source), &talk(&["a", " b ", "c", "d"]));
    assert_eq!(found, ["B<|im_end|>", "D<|im_end|>"]);
}

#[test]
fn a_template_that_leaves_out_the_assistant_is_no_ground_for_training() {
    let template = made("{% for m in messages if m.role == 'user' %}{{ m.content }}<|im_end|>{% endfor %}");
    let fault = template.conversation(&talk(&["a", "b"]), &Asked::default(), &["<|im_end|>".into()]).unwrap_err();
    assert_eq!(fault.code(), "chat_template_refused");
    assert!(fault.to_string().contains("message 2"), "{fault}");
}

#[test]
fn a_templates_own_tags_tell_the_turns_and_leave_no_mark() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}\n\
                  {%- generation -%}\n{{ m.content }}<|im_end|>\n{%- endgeneration -%}\n\
                  {% else %}\n{{ m.content }}<|im_end|>\n{% endif %}\n{% endfor %}";
    assert_eq!(said(&made(source), &talk(&["a", "b", "c", "d"])), ["b<|im_end|>", "d<|im_end|>"]);
    let text = made(source).conversation(&talk(&["a", "b"]), &Asked::default(), &[]).unwrap().text;
    assert_eq!(text, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>");
}

#[test]
fn tags_that_do_not_enclose_every_turn_are_not_relied_on() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last %}{% generation %}{{ m.content }}\
                  {% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}";
    let source = format!("{source}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}");
    assert_eq!(said(&made(&source), &talk(&["a", "b", "c", "d"])), ["b<|im_end|>", "d<|im_end|>"]);
}

#[test]
fn faults_are_told_apart() {
    let fault = Template::new("{% if %}", BTreeMap::new()).unwrap_err();
    assert_eq!(fault.code(), "bad_chat_template");
    let fault = made("{{ raise_exception('Only users!') }}").render(&talk(&["a"]), &Asked::default()).unwrap_err();
    assert_eq!(fault.code(), "chat_template_refused");
    assert!(fault.to_string().ends_with(": Only users!"), "{fault}");
    let fault = made(CHATML).render(&[], &Asked::default()).unwrap_err();
    assert_eq!(fault.code(), "chat_template_refused");
}

#[test]
fn a_message_keeps_its_fields_in_order_and_needs_a_role() {
    let text = r#"{"zeta":1,"role":"user","content":[{"type":"text","text":"a"}],"alpha":{"y":null,"x":2.0}}"#;
    let message: Message = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&message).unwrap(), text);
    let written = made("{{ messages[0] | tojson(separators=(',', ':')) }}").render(&[message], &Asked::default());
    assert_eq!(written.unwrap(), text);
    for wrong in [r#"{"content": "a"}"#, r#"{"role": 1}"#, r#""user""#, "[]"] {
        let fault = serde_json::from_str::<Message>(wrong).unwrap_err().to_string();
        assert!(fault.contains("a message"), "{fault}");
    }
}

#[test]
fn templates_and_tokens_are_found_where_checkpoints_have_them() {
    let show = |template: Option<Template>| template.unwrap().render(&talk(&["a"]), &Asked::default()).unwrap();
    let source = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ messages[0].content }}";
    let bos = json!({"content": "<s>", "lstrip": false});
    let one = json!({"chat_template": source, "bos_token": bos, "eos_token": "</s>", "pad_token": null});
    let older = json!({"eos_token": "<no>", "pad_token": {"content": "<pad>"}});
    assert_eq!(show(from_config(&one, &older, None).unwrap()), "<s>|</s>|<pad>|a");
    assert_eq!(show(from_config(&one, &json!(null), Some("own {{ eos_token }}")).unwrap()), "own </s>");
    let several = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": source},
    ]});
    assert_eq!(show(from_config(&several, &json!(null), None).unwrap()), "|||a");
    assert!(from_config(&json!({"bos_token": "<s>"}), &json!(null), None).unwrap().is_none());

    let token = |key: &str| (key == "tokenizer.ggml.padding_token_id").then(|| "<pad>".to_string());
    assert_eq!(show(from_gguf(Some(source), token).unwrap()), "||<pad>|a");
    assert!(from_gguf(None, token).unwrap().is_none());

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chat_templates");
    std::fs::create_dir_all(&folder).unwrap();
    let files = ["chat_template.jinja", "tokenizer_config.json"].map(|name| folder.join(name));
    files.iter().for_each(|file| drop(std::fs::remove_file(file)));
    assert!(from_folder(&folder).unwrap().is_none());
    std::fs::write(&files[1], one.to_string()).unwrap();
    assert_eq!(show(from_folder(&folder).unwrap()), "<s>|</s>||a");
    std::fs::write(&files[0], "own {{ eos_token }}\n").unwrap();
    assert_eq!(show(from_folder(&folder).unwrap()), "own </s>");
    std::fs::write(&files[1], "{").unwrap();
    assert_eq!(from_folder(&folder).unwrap_err().code(), "base_model_damaged");
}
