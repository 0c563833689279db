//! Tokenizing the start of a text gives the tokens of the whole text, for every kind of tokenizer.

use super::*;
use crate::model::chat::{ChatTemplate, Json, Message};
use crate::model::cut_points::{LLAMA3_SPLIT_PATTERN, QWEN2_SPLIT_PATTERN};
use espalier_tensor::seeded_rng::SeededRng;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

const FIXTURES: [&str; 9] = [
    "tiny-bert",
    "architectures/xlm-roberta",
    "architectures/esm",
    "architectures/llama",
    "architectures/modernbert",
    "language/roberta",
    "language/mpnet",
    "decoders/llama",
    "decoders/gpt2",
];

fn fixture_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name).join("tokenizer.json")
}

fn fixture_json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture_path(name)).unwrap()).unwrap()
}

fn tokenizer(json: &Value) -> Tokenizer {
    Tokenizer::from_json(json.to_string().as_bytes(), Path::new("tokenizer.json")).unwrap().0
}

#[test]
fn template_without_a_place_for_tools_is_refused_in_words() {
    let source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}";
    let template = ChatTemplate::new(source, Default::default()).map_err(|error| error.to_string());
    let config = GenerationConfig { chat_template: Some(template), ..GenerationConfig::default() };
    let tokenizer = tokenizer(&fixture_json("decoders/llama")).with_generation_config(config);
    let message = |json: &str| serde_json::from_str::<Message>(json).unwrap();
    let plain = [message(r#"{"role": "user", "content": "a"}"#), message(r#"{"role": "assistant", "content": "b"}"#)];
    assert!(tokenizer.encode_conversation(&plain, None).is_ok());
    let refused = |messages: &[Message], tools: Option<&Json>| {
        let error = tokenizer.encode_conversation(messages, tools).unwrap_err();
        assert_eq!(error.code(), "chat_template_refused");
        error.to_string()
    };
    let tools = Json::from(vec!["f"]);
    assert!(refused(&plain, Some(&tools)).contains("has no place for tools: leave `tools` out of the row"));
    let call = message(
        r#"{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}"#,
    );
    assert!(refused(&[plain[0].clone(), call], None).contains("has no place for calls of tools"));
}

#[test]
fn special_tokens_are_shown_if_they_are_asked_for() {
    let tokenizer = tokenizer(&fixture_json("decoders/llama"));
    let ids = tokenizer.encode_without_special_tokens("a<|im_start|>bé<|im_end|> c").unwrap();
    let shown = ["<|im_start|>"].map(|token| tokenizer.token_to_id(token).unwrap());
    assert_eq!(tokenizer.decode_with(&ids, &shown), "a<|im_start|>bé c");
    assert_eq!(tokenizer.decode_with(&ids, &[]), tokenizer.decode(&ids));
}

/// Byte-level BPE that splits by a regular expression, like Llama 3 and Qwen 2.
fn byte_level_with_split(pattern: &str) -> Value {
    let mut json = fixture_json("decoders/gpt2");
    json["normalizer"] = json!({"type": "NFC"});
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    json
}

/// Byte-level BPE with RoBERTa's `<mask>`, which takes the white space before it.
fn byte_level_with_mask() -> Value {
    let mut json = fixture_json("decoders/gpt2");
    json["pre_tokenizer"]["add_prefix_space"] = json!(true);
    let mask = json!({"id": 320, "content": "<mask>", "single_word": false, "lstrip": true, "rstrip": false,
        "normalized": false, "special": true});
    json["added_tokens"].as_array_mut().unwrap().push(mask);
    json
}

fn metaspace_vocabulary() -> Vec<String> {
    let pieces =
        ["<unk>", "\u{2581}", "\u{2581}\u{2581}", "\u{2581}the", "\u{2581}ca", "rd", "th", "he", "ca", "\u{2581}t"];
    pieces.into_iter().map(str::to_string).chain(('!'..='~').map(String::from)).collect()
}

/// SentencePiece's BPE without a pre-tokenizer, as Llama 2 has it.
fn sentencepiece_bpe() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        metaspace_vocabulary().into_iter().zip(0..).map(|(piece, id)| (piece, json!(id))).collect();
    json!({"version": "1.0", "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": vocabulary, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "merges": [["\u{2581}", "\u{2581}"], ["t", "h"], ["h", "e"], ["\u{2581}", "t"], ["\u{2581}t", "he"],
                ["c", "a"], ["\u{2581}", "ca"], ["r", "d"]]}})
}

/// Unigram tokenizer as in XLM-RoBERTa and T5. Without a pre-tokenizer the whole text is one piece.
fn unigram(pre_tokenizer: &Value) -> Value {
    let vocabulary: Vec<Value> =
        metaspace_vocabulary().iter().zip(0..).map(|(piece, id)| json!([piece, -f64::from(id % 7) - 1.0])).collect();
    let normalizers = json!([{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]);
    json!({"version": "1.0", "added_tokens": [], "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary}})
}

fn whole_text_unigram() -> Tokenizer {
    tokenizer(&unigram(&Value::Null))
}

/// Tokenizers with cut points.
fn tokenizers_with_cuts() -> Vec<(String, Tokenizer)> {
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let old_metaspace = json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]});
    let built = [
        ("llama3 split", byte_level_with_split(LLAMA3_SPLIT_PATTERN)),
        ("qwen2 split", byte_level_with_split(QWEN2_SPLIT_PATTERN)),
        ("byte level with mask", byte_level_with_mask()),
        ("sentencepiece bpe", sentencepiece_bpe()),
        ("unigram", unigram(&metaspace)),
        ("unigram of words", unigram(&old_metaspace)),
    ];
    let fixtures = FIXTURES.into_iter().map(|name| (name.to_string(), tokenizer(&fixture_json(name))));
    fixtures.chain(built.into_iter().map(|(name, json)| (name.to_string(), tokenizer(&json)))).collect()
}

/// Text of random fragments: words of several scripts, punctuation, white space, special tokens and long words.
fn random_text(random: &mut SeededRng, fragments: usize) -> String {
    const FRAGMENTS: &[&str] = &[
        "the",
        "card",
        "don't",
        "we'll",
        " ",
        " ",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\t \n",
        " \r\n",
        "\u{a0}",
        "\u{3000}",
        "x",
        "12345",
        "3.14",
        "...",
        "!",
        "\u{201d}",
        "e\u{301}",
        " \u{301}",
        "\u{0}",
        "\u{200b}",
        "\u{600} ",
        "\u{d4e} ",
        "K\u{f6}ln",
        "\u{130}",
        "\u{3a3}",
        "\u{415}\u{449}\u{451}",
        "\u{6771}\u{4eac}\u{3002}",
        "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}",
        "\u{1f469}\u{200d}\u{1f4bb}",
        "[MASK]",
        "<mask>",
        "<|im_start|>",
        "</s>",
        "\u{2581}",
        "\u{fb01}",
    ];
    let mut text = String::new();
    for _ in 0..fragments {
        match random.uniform_below(60) {
            0 => text.push_str(&"ab".repeat(random.uniform_below(200))),
            1 => text.push_str(&" ".repeat(random.uniform_below(100))),
            _ => text.push_str(FRAGMENTS[random.uniform_below(FRAGMENTS.len())]),
        }
    }
    text
}

/// Tokens of the texts when all of them are tokenized.
fn encode_whole(
    tokenizer: &Tokenizer,
    text: &str,
    text_pair: Option<&str>,
    max_length: usize,
) -> (Vec<u32>, Vec<u32>, bool) {
    let encode = |text: &str| tokenizer.inner.encode_fast(text, false).unwrap();
    let token_budget = tokenizer.token_budget(text_pair.is_some(), max_length);
    let (encoding, truncated) =
        tokenizer.truncate_and_post_process(encode(text), text_pair.map(encode), token_budget).unwrap();
    (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec(), truncated)
}

fn encode_words_whole(tokenizer: &Tokenizer, text: &str, words: &[CharSpan], max_length: usize) -> Tokens {
    // Without cut points a text is tokenized as a whole.
    let whole = Tokenizer {
        inner: tokenizer.inner.clone(),
        id_count: tokenizer.id_count,
        can_cut: false,
        unknown_token: None,
        upper_cases_residues: false,
        prompt_prefix_length: tokenizer.prompt_prefix_length,
        generation_config: GenerationConfig::default(),
    };
    whole.encode_words(text, words, TextLimits::tokens(max_length)).unwrap()
}

/// Words between white space, in code points.
fn word_spans(text: &str) -> Vec<CharSpan> {
    let characters: Vec<char> = text.chars().collect();
    let words = characters.split(|character| character.is_whitespace());
    let mut position = 0;
    let spans = words.map(|word| {
        let start = position;
        position += word.len() as u32 + 1;
        start..start + word.len() as u32
    });
    spans.filter(|span| !span.is_empty()).collect()
}

#[test]
fn tokens_are_those_of_the_whole_text() {
    let mut random = SeededRng::new(5, &["texts"]);
    for (name, tokenizer) in tokenizers_with_cuts() {
        assert!(tokenizer.can_cut, "{name}");
        for round in 0..15 {
            let fragments = random.uniform_below(500);
            let (text, max_length) = (random_text(&mut random, fragments), 4 + random.uniform_below(20));
            let found = tokenizer.encode(&text, None, max_length).unwrap();
            let expected = encode_whole(&tokenizer, &text, None, max_length);
            assert_eq!((found.ids, found.type_ids, found.truncated), expected, "{name}, round {round}: {text:?}");
            let words = word_spans(&text);
            let found = tokenizer.encode_words(&text, &words, TextLimits::tokens(max_length)).unwrap();
            assert_eq!(found, encode_words_whole(&tokenizer, &text, &words, max_length), "{name}, round {round}");
        }
    }
}

#[test]
fn pairs_are_truncated_as_whole_texts_are() {
    let mut random = SeededRng::new(6, &["pairs"]);
    for (name, tokenizer) in tokenizers_with_cuts() {
        for round in 0..3 {
            let mut text = || {
                let fragments = [20, 150, 500][random.uniform_below(3)];
                let fragments = random.uniform_below(fragments);
                random_text(&mut random, fragments)
            };
            let (first, second) = (text(), text());
            for max_length in [4, 17, 18] {
                let found = tokenizer.encode(&first, Some(&second), max_length).unwrap();
                let expected = encode_whole(&tokenizer, &first, Some(&second), max_length);
                assert_eq!((found.ids, found.type_ids, found.truncated), expected, "{name}, round {round}");
            }
        }
    }
}

#[test]
fn an_odd_token_goes_to_the_text_with_more_tokens() {
    let tokenizer = tokenizer(&fixture_json("tiny-bert"));
    let (longer, shorter) = ("card ".repeat(201), "fee ".repeat(200));
    for (first, second) in [(&longer, &shorter), (&shorter, &longer), (&longer, &longer)] {
        for max_length in [14, 15] {
            let found = tokenizer.encode(first, Some(second), max_length).unwrap();
            let expected = encode_whole(&tokenizer, first, Some(second), max_length);
            assert_eq!((found.ids, found.type_ids, found.truncated), expected);
        }
    }
}

#[test]
fn prompts_are_those_of_the_whole_text_or_too_long() {
    let mut random = SeededRng::new(7, &["prompts"]);
    for (name, tokenizer) in tokenizers_with_cuts() {
        for _ in 0..15 {
            let fragments = random.uniform_below(300);
            let text = random_text(&mut random, fragments);
            let limits = TextLimits::tokens(1 + random.uniform_below(300));
            let token_count = tokenizer.encode_without_special_tokens(&text).unwrap().len();
            let expected = (token_count <= limits.max_length).then(|| tokenizer.encode_prompt(&text).unwrap());
            assert_eq!(tokenizer.encode_prompt_within(&text, limits).unwrap(), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn no_more_of_a_text_is_tokenized_than_its_first_tokens_need() {
    let text = "where is my card, and why was I charged? ".repeat(10_000);
    for (name, tokenizer) in tokenizers_with_cuts() {
        // A whole text would exceed the limit.
        let limits = TextLimits { max_text_bytes: 4 << 10, ..TextLimits::tokens(64) };
        let tokens = tokenizer.encode_within(&text, Some("a card"), limits).unwrap();
        assert_eq!((tokens.ids.len(), tokens.truncated), (64, true), "{name}");
        assert_eq!(tokenizer.encode_prompt_within(&text, limits).unwrap(), None, "{name}");
    }
}

#[test]
fn a_text_that_must_be_tokenized_as_a_whole_is_refused_beyond_the_limit() {
    let limits = TextLimits { max_text_bytes: 10_000, ..TextLimits::tokens(16) };
    let bert = tokenizer(&fixture_json("tiny-bert"));
    let (long_word, spaces) = ("a".repeat(10_001), format!("a{}b", " ".repeat(10_000)));
    let code =
        |tokenizer: &Tokenizer, text: &str| tokenizer.encode_within(text, None, limits).err().map(|error| error.code());
    assert_eq!(code(&bert, &long_word), Some("text_too_long"));
    assert_eq!(code(&bert, &spaces), Some("text_too_long"));
    assert_eq!(code(&bert, &long_word[1..]), None);
    assert_eq!(code(&bert, &format!("{} {long_word}", "a card ".repeat(16))), None, "the first tokens are before it");
    let unsplit = whole_text_unigram();
    assert!(!unsplit.can_cut);
    assert_eq!(code(&unsplit, &"a card ".repeat(2000)), Some("text_too_long"));
    assert_eq!(code(&unsplit, &"a card ".repeat(1000)), None);
}

#[test]
fn tokenizing_ends_when_it_is_cancelled() {
    let tokenizer = tokenizer(&fixture_json("tiny-bert"));
    let is_cancelled = AtomicBool::new(true);
    let limits = TextLimits { is_cancelled: &is_cancelled, ..TextLimits::tokens(16) };
    assert_eq!(tokenizer.encode_within("a card", None, limits).unwrap_err().code(), "internal");
}

#[test]
fn unknown_steps_have_no_cut_points() {
    let bert = fixture_json("tiny-bert");
    let with = |field: &str, value: Value| {
        let mut json = bert.clone();
        json[field] = value;
        cut_points::can_cut_at_spaces(&json)
    };
    assert!(with("pre_tokenizer", json!({"type": "Whitespace"})));
    assert!(!with("pre_tokenizer", Value::Null));
    assert!(!with("pre_tokenizer", json!({"type": "UnicodeScripts"})));
    assert!(!with(
        "pre_tokenizer",
        json!({"type": "Split", "pattern": {"Regex": "a b"}, "behavior": "Isolated", "invert": false})
    ));
    assert!(!with("normalizer", json!({"type": "Replace", "pattern": {"Regex": "a b"}, "content": "c"})));
    let spaced = json!([{"id": 4, "content": "[a b]", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}]);
    assert!(!with("added_tokens", spaced));
    assert!(!with("model", json!({"type": "BPE", "dropout": 0.1})));
}

#[test]
fn residues_in_lower_case_have_the_tokens_of_those_in_upper_case() {
    let mut tokenizer_json = fixture_json("architectures/esm");
    let vocabulary = tokenizer_json["model"]["vocab"].as_object().unwrap().clone();
    let upper_case = |token: String| if token.starts_with('<') { token } else { token.to_uppercase() };
    tokenizer_json["model"]["vocab"] = vocabulary.into_iter().map(|(token, id)| (upper_case(token), id)).collect();
    tokenizer_json["normalizer"] = Value::Null;
    let tokenizer = tokenizer(&tokenizer_json);
    let ids = |text: &str| tokenizer.encode(text, None, 64).unwrap().ids;
    assert_eq!(ids("mtple<mask>K"), ids("MTPLE<mask>K"));
    assert_eq!(tokenizer.count_unknown(&ids("mtpl")), VocabularyCount { unknown: 0, tokens: 4 });
    assert_eq!(tokenizer.count_unknown(&ids("mt1")).unknown, 1);
    let words = [0..2, 2..4];
    let limits = TextLimits::tokens(64);
    let encode_words = |text: &str| tokenizer.encode_words(text, &words, limits).unwrap();
    assert_eq!(encode_words("mtpl"), encode_words("MTPL"));
}
