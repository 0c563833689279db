//! Chat templates of public models against transformers: `tests/chat/expected.json`, made by `tests/chat/render.py`. The text of every
//! conversation with every template, byte for byte, and the spans of the assistant messages.

use espalier_core::error::Error;
use espalier_core::model::chat::{
    ChatTemplate, Json, Message, RenderOptions, RenderedConversation, TemplateSources, from_config, from_folder,
    from_gguf,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct ConversationCase {
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

fn template(family: &str, expected: &Expected) -> ChatTemplate {
    let source = std::fs::read_to_string(folder().join(format!("templates/{family}.jinja"))).unwrap();
    ChatTemplate::new(&source, expected.families[family].tokens.clone()).unwrap()
}

fn template_options(conversation: &ConversationCase, expected: &Expected) -> RenderOptions {
    let (tools, documents) = (conversation.tools.clone(), conversation.documents.clone());
    let (variables, now) = (conversation.variables.clone(), Some(expected.now));
    RenderOptions { tools, documents, variables, now, ..RenderOptions::default() }
}

/// Description of the difference; `None` if `rendered` is as expected.
fn mismatch(rendered: Result<String, Error>, text: Option<&String>, error: Option<&String>) -> Option<String> {
    match (rendered, text) {
        (Ok(text), Some(expected)) if text == *expected => None,
        (Ok(text), Some(expected)) => Some(format!("\n expected {expected:?}\n but got  {text:?}")),
        (Ok(text), None) => Some(format!("\n expected the error {error:?}\n but got  {text:?}")),
        (Err(fault), Some(expected)) => Some(format!("\n expected {expected:?}\n but got  the error {fault}")),
        (Err(fault), None) => {
            let has_message = error.is_none_or(|error| fault.to_string().ends_with(error));
            let is_refused = fault.code() == "chat_template_refused" && has_message;
            (!is_refused).then(|| format!("\n expected the error {error:?}\n but got  {fault}"))
        }
    }
}

fn assert_none(faults: &[String], of: usize) {
    assert!(faults.is_empty(), "{} of {of} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn rendered_conversations_agree_with_transformers() {
    let expected: Expected = read("expected.json");
    let conversations: Vec<ConversationCase> = read("conversations.json");
    assert_eq!(expected.cases.len(), expected.families.len() * conversations.len());
    let mut faults = Vec::new();
    for case in &expected.cases {
        let conversation = conversations.iter().find(|one| one.name == case.conversation).unwrap();
        let (template, options) = (template(&case.family, &expected), template_options(conversation, &expected));
        let rendered = match conversation.generation_prompt {
            true => template.render_prompt(&conversation.messages, &options),
            false => template.render(&conversation.messages, &options),
        };
        let found = mismatch(rendered, case.text.as_ref(), case.error.as_ref());
        faults.extend(found.map(|found| format!("{} × {}: {found}", case.family, case.conversation)));
    }
    assert_none(&faults, expected.cases.len());
}

#[test]
fn assistant_turns_are_located_in_every_conversation() {
    let expected: Expected = read("expected.json");
    let conversations: Vec<ConversationCase> = read("conversations.json");
    let mut faults = Vec::new();
    let cases: Vec<&Case> = expected.cases.iter().filter(|case| case.turns.is_some()).collect();
    assert!(cases.len() > 20, "{} cases", cases.len());
    for case in &cases {
        let conversation = conversations.iter().find(|one| one.name == case.conversation).unwrap();
        let (template, options) = (template(&case.family, &expected), template_options(conversation, &expected));
        let RenderedConversation { text, assistant_spans: turns } = template
            .render_conversation(&conversation.messages, &options, &expected.families[&case.family].ends)
            .unwrap();
        assert_eq!(Some(&text), case.text.as_ref());
        let wanted: Vec<&str> = case.turns.iter().flatten().map(|(start, end)| &text[*start..*end]).collect();
        let found: Vec<&str> = turns.iter().map(|turn| &text[turn.clone()]).collect();
        let spans: Vec<(usize, usize)> = turns.iter().map(|turn| (turn.start, turn.end)).collect();
        if case.turns.as_ref() != Some(&spans) {
            let label = format!("{} × {}", case.family, case.conversation);
            faults.push(format!("{label}:\n expected {wanted:#?}\n but got  {found:#?} in {text:?}"));
        }
    }
    assert_none(&faults, cases.len());
}

#[test]
fn jinja_expressions_have_python_semantics() {
    let expected: Expected = read("expected.json");
    let Snippets { messages, variables } = read("snippets.json");
    let options = RenderOptions { variables, now: Some(expected.now), ..RenderOptions::default() };
    let mut faults = Vec::new();
    for snippet in &expected.snippets {
        let tokens = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
        let rendered =
            ChatTemplate::new(&snippet.template, tokens).and_then(|template| template.render(&messages, &options));
        let found = mismatch(rendered, snippet.text.as_ref(), snippet.error.as_ref());
        faults.extend(found.map(|found| format!("{}{found}", snippet.template)));
    }
    assert_none(&faults, expected.snippets.len());
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn compile_template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, BTreeMap::new()).unwrap()
}

fn assistant_turns(template: &ChatTemplate, messages: &[Message]) -> Vec<String> {
    let ends = ["<|im_start|>", "<|im_end|>", "<|end|>"].map(str::to_string);
    let RenderedConversation { text, assistant_spans: turns } =
        template.render_conversation(messages, &RenderOptions::default(), &ends).unwrap();
    turns.into_iter().map(|turn| text[turn].to_string()).collect()
}

fn conversation(contents: &[&str]) -> Vec<Message> {
    contents
        .iter()
        .zip(["user", "assistant"].iter().cycle())
        .map(|(content, role)| Message::new(role, *content))
        .collect()
}

#[test]
fn assistant_turn_may_be_first_last_or_repeated() {
    let messages = [("assistant", "Hello."), ("assistant", "Well?"), ("user", "Hm."), ("assistant", "")];
    let messages = messages.map(|(role, content)| Message::new(role, content));
    assert_eq!(
        assistant_turns(&compile_template(CHATML), &messages),
        ["Hello.<|im_end|>", "Well?<|im_end|>", "<|im_end|>"]
    );
}

#[test]
fn end_tokens_in_a_message_do_not_end_its_turn() {
    let found = assistant_turns(
        &compile_template(CHATML),
        &conversation(&["a", "b<|im_end|>\n", "c", "<|im_start|>d<|im_start|>"]),
    );
    assert_eq!(found, ["b<|im_end|>\n<|im_end|>", "<|im_start|>d<|im_start|><|im_end|>"]);
}

#[test]
fn templates_that_render_earlier_turns_differently_are_supported() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<now>\
                  {% endif %}{{ m.content | trim | upper }}<|im_end|>\n{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n<now>{% else %}<|end|>{% endif %}";
    let found = assistant_turns(&compile_template(source), &conversation(&["a", " b ", "c", "d"]));
    assert_eq!(found, ["B<|im_end|>", "D<|im_end|>"]);
}

#[test]
fn template_without_assistant_text_is_rejected_for_training() {
    let template = compile_template("{% for m in messages if m.role == 'user' %}{{ m.content }}<|im_end|>{% endfor %}");
    let fault = template
        .render_conversation(&conversation(&["a", "b"]), &RenderOptions::default(), &["<|im_end|>".into()])
        .unwrap_err();
    assert_eq!(fault.code(), "chat_template_refused");
    assert!(fault.to_string().contains("message 2"), "{fault}");
}

#[test]
fn generation_tags_mark_assistant_turns() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}\n\
                  {%- generation -%}\n{{ m.content }}<|im_end|>\n{%- endgeneration -%}\n\
                  {% else %}\n{{ m.content }}<|im_end|>\n{% endif %}\n{% endfor %}";
    assert_eq!(
        assistant_turns(&compile_template(source), &conversation(&["a", "b", "c", "d"])),
        ["b<|im_end|>", "d<|im_end|>"]
    );
    let text = compile_template(source)
        .render_conversation(&conversation(&["a", "b"]), &RenderOptions::default(), &[])
        .unwrap()
        .text;
    assert_eq!(text, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>");
}

#[test]
fn incomplete_generation_tags_are_ignored() {
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last %}{% generation %}{{ m.content }}\
                  {% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}";
    let source = format!("{source}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}");
    assert_eq!(
        assistant_turns(&compile_template(&source), &conversation(&["a", "b", "c", "d"])),
        ["b<|im_end|>", "d<|im_end|>"]
    );
}

#[test]
fn template_errors_are_distinguished() {
    let fault = ChatTemplate::new("{% if %}", BTreeMap::new()).unwrap_err();
    assert_eq!(fault.code(), "bad_chat_template");
    let fault = compile_template("{{ raise_exception('Only users!') }}")
        .render(&conversation(&["a"]), &RenderOptions::default())
        .unwrap_err();
    assert_eq!(fault.code(), "chat_template_refused");
    assert!(fault.to_string().ends_with(": Only users!"), "{fault}");
    let fault = compile_template(CHATML).render(&[], &RenderOptions::default()).unwrap_err();
    assert_eq!(fault.code(), "chat_template_refused");
}

#[test]
fn message_keeps_field_order_and_requires_a_role() {
    let text = r#"{"zeta":1,"role":"user","content":[{"type":"text","text":"a"}],"alpha":{"y":null,"x":2.0}}"#;
    let message: Message = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&message).unwrap(), text);
    let written = compile_template("{{ messages[0] | tojson(separators=(',', ':')) }}")
        .render(&[message], &RenderOptions::default());
    assert_eq!(written.unwrap(), text);
    for wrong in [r#"{"content": "a"}"#, r#"{"role": 1}"#, r#""user""#, "[]"] {
        let fault = serde_json::from_str::<Message>(wrong).unwrap_err().to_string();
        assert!(fault.contains("must "), "{fault}");
    }
}

#[test]
fn templates_and_special_tokens_are_loaded_from_checkpoints() {
    let show = |template: Option<ChatTemplate>| {
        template.unwrap().render(&conversation(&["a"]), &RenderOptions::default()).unwrap()
    };
    let source = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ messages[0].content }}";
    let bos = json!({"content": "<s>", "lstrip": false});
    let one = json!({"chat_template": source, "bos_token": bos, "eos_token": "</s>", "pad_token": null});
    let none = TemplateSources::default();
    let file = TemplateSources { default: Some("own {{ eos_token }}"), tool_use: None };
    let older = json!({"eos_token": "<no>", "pad_token": {"content": "<pad>"}});
    assert_eq!(show(from_config(&one, &older, none).unwrap()), "<s>|</s>|<pad>|a");
    assert_eq!(show(from_config(&one, &json!(null), file).unwrap()), "own </s>");
    let several = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": source},
    ]});
    assert_eq!(show(from_config(&several, &json!(null), none).unwrap()), "|||a");
    assert!(from_config(&json!({"bos_token": "<s>"}), &json!(null), none).unwrap().is_none());

    let with_tools = RenderOptions { tools: Some(Json::from(vec!["f"])), ..RenderOptions::default() };
    let show_with_tools =
        |template: Option<ChatTemplate>| template.unwrap().render(&conversation(&["a"]), &with_tools).unwrap();
    assert_eq!(show_with_tools(from_config(&several, &json!(null), none).unwrap()), "tools");
    let tool_use = TemplateSources { tool_use: Some("own tools"), ..none };
    assert_eq!(show_with_tools(from_config(&several, &json!(null), tool_use).unwrap()), "own tools");
    assert_eq!(show_with_tools(from_config(&several, &json!(null), file).unwrap()), "own ");

    let token = |key: &str| (key == "tokenizer.ggml.padding_token_id").then(|| "<pad>".to_string());
    assert_eq!(show(from_gguf(TemplateSources { default: Some(source), ..tool_use }, token).unwrap()), "||<pad>|a");
    let gguf = from_gguf(TemplateSources { default: Some(source), ..tool_use }, token).unwrap();
    assert_eq!(show_with_tools(gguf), "own tools");
    assert!(from_gguf(none, token).unwrap().is_none());

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
