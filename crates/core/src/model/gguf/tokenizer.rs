//! A GGUF file's tokenizer as a `tokenizer.json`: byte-level BPE (Sennrich et al. 2016; Radford et al. 2019), with the splitting
//! that the file names, or SentencePiece's.

mod sentencepiece;

use super::{Gguf, whole};
use crate::error::Result;
use crate::model::weights::damaged;
use candle_core::quantized::gguf_file::Value as Field;
use serde_json::{Value, json};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a token is, by `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    /// Unused ones, and the bytes of SentencePiece.
    Other,
}

/// All tokens, by their ids.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    /// Of some or all of them.
    kinds: Vec<Kind>,
}

/// # Errors
/// `Invalid` naming what is missing, or not known.
pub fn read(gguf: &Gguf) -> Result<Value> {
    let vocabulary = Vocabulary::read(gguf)?;
    let (mut parts, usual) = match gguf.needed("tokenizer.ggml.model", gguf.text("tokenizer.ggml.model"))? {
        "gpt2" => (byte_level(gguf, &vocabulary)?, &[][..]),
        "llama" => (sentencepiece::read(gguf, &vocabulary)?, &["add_bos_token"][..]),
        other => {
            let known = "known are gpt2, byte-level BPE, and llama, SentencePiece's";
            return gguf.unsupported(&format!("tokenizer.ggml.model \"{other}\" ({known})"));
        }
    };
    parts["version"] = json!("1.0");
    parts["added_tokens"] = json!(vocabulary.added());
    parts["post_processor"] = special(gguf, &vocabulary.tokens, usual)?;
    Ok(parts)
}

/// The parts of a `tokenizer.json` that are byte-level BPE's own.
fn byte_level(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value> {
    let merges = texts(gguf, "tokenizer.ggml.merges")?;
    let splitting = splitting(gguf)?;
    Ok(json!({
        "normalizer": splitting.normalizer,
        "pre_tokenizer": splitting.pre_tokenizer,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "vocab": vocabulary.ids(),
            "merges": merges,
            "ignore_merges": splitting.ignores_merges,
        },
    }))
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &'a Gguf) -> Result<Self> {
        let kinds = gguf.field("tokenizer.ggml.token_type").and_then(|field| field.to_vec().ok());
        let kind = |field: &Field| match whole(field) {
            Some(1) => Kind::Normal,
            Some(2) => Kind::Unknown,
            Some(3) => Kind::Control,
            Some(4) => Kind::UserDefined,
            _ => Kind::Other,
        };
        let kinds = kinds.into_iter().flatten().map(kind).collect();
        Ok(Self { tokens: texts(gguf, "tokenizer.ggml.tokens")?, kinds })
    }

    /// Of a token that the file says nothing of: normal.
    fn kind(&self, id: usize) -> Kind {
        self.kinds.get(id).copied().unwrap_or(Kind::Normal)
    }

    /// Those of a kind, with their ids.
    fn of(&self, kind: Kind) -> impl Iterator<Item = (usize, &'a str)> {
        let all = self.tokens.iter().copied().enumerate();
        all.filter(move |(id, _)| self.kind(*id) == kind)
    }

    fn ids(&self) -> serde_json::Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| ((*token).to_string(), json!(id))).collect()
    }

    /// Tokens that a text has whole.
    fn added(&self) -> Vec<Value> {
        let one = |(id, token): (usize, &&str)| {
            let kind = self.kind(id);
            matches!(kind, Kind::Unknown | Kind::Control | Kind::UserDefined).then(|| {
                json!({
                    "id": id, "content": token, "special": kind != Kind::UserDefined,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
        };
        self.tokens.iter().enumerate().filter_map(one).collect()
    }
}

fn texts<'a>(gguf: &'a Gguf, name: &str) -> Result<Vec<&'a str>> {
    let all = gguf.needed(name, gguf.field(name).and_then(|field| field.to_vec().ok()))?;
    let text = |field: &'a Field| match field {
        Field::String(text) => Ok(text.as_str()),
        _ => Err(damaged(&gguf.path, &format!("{name} has something that is no text"))),
    };
    all.iter().map(text).collect()
}

/// How a text is cut before its bytes are merged.
struct Splitting {
    normalizer: Value,
    pre_tokenizer: Value,
    /// Whether a word of the vocabulary is taken whole, whatever its merges.
    ignores_merges: bool,
}

fn splitting(gguf: &Gguf) -> Result<Splitting> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let after = |first: Value, use_regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(use_regex)]});
    let by = |regex: &str| {
        after(json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}), false)
    };
    let plain = |pre_tokenizer: Value| Splitting { normalizer: Value::Null, pre_tokenizer, ignores_merges: false };
    Ok(match gguf.text("tokenizer.ggml.pre").unwrap_or("default") {
        "gpt-2" | "default" => plain(bytes(true)),
        "smollm" => plain(after(json!({"type": "Digits", "individual_digits": true}), true)),
        "llama-bpe" | "llama3" | "llama-v3" => Splitting { ignores_merges: true, ..plain(by(LLAMA3)) },
        "qwen2" => Splitting { normalizer: json!({"type": "NFC"}), ..plain(by(QWEN2)) },
        other => {
            return gguf
                .unsupported(&format!("tokenizer.ggml.pre \"{other}\" (known are smollm, llama-bpe, qwen2, gpt-2)"));
        }
    })
}

/// What is put before and behind a text; `usual` are switches that are on where the file does not say it.
fn special(gguf: &Gguf, tokens: &[&str], usual: &[&str]) -> Result<Value> {
    let one = |name: &str, id: &str| {
        let (switch, id) = (format!("tokenizer.ggml.{name}"), format!("tokenizer.ggml.{id}"));
        if !gguf.switch(&switch).unwrap_or(usual.contains(&name)) {
            return Ok(None);
        }
        let found = gguf.needed(&id, gguf.whole(&id))? as usize;
        let token = gguf.needed(&format!("the token that {id} names"), tokens.get(found))?;
        Ok::<_, crate::error::Error>(Some((*token, found)))
    };
    let (first, last) = (one("add_bos_token", "bos_token_id")?, one("add_eos_token", "eos_token_id")?);
    if first.is_none() && last.is_none() {
        return Ok(Value::Null);
    }
    let named =
        |token: &Option<(&str, usize)>| token.map(|(token, _)| json!({"SpecialToken": {"id": token, "type_id": 0}}));
    let text = |part: &str| Some(json!({"Sequence": {"id": part, "type_id": 0}}));
    let all = |parts: Vec<Option<Value>>| parts.into_iter().flatten().collect::<Vec<Value>>();
    let whole = |part: &str| [named(&first), text(part), named(&last)];
    let tokens: serde_json::Map<String, Value> = [&first, &last]
        .into_iter()
        .flatten()
        .map(|(token, id)| ((*token).to_string(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": all(whole("A").to_vec()),
        "pair": all([whole("A"), whole("B")].concat()),
        "special_tokens": tokens,
    }))
}
