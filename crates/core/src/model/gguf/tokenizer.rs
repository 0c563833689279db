//! `tokenizer.json` from the metadata of a GGUF file: byte-level BPE (Sennrich et al. 2016; Radford et al. 2019), or SentencePiece's
//! BPE (Kudo & Richardson 2018) of Llama 2 and Mistral.

use super::file::{GgufFile, value_as_u64};
use crate::error::Result;
use crate::model::checkpoint_files::damaged_file_error;
use crate::model::cut_points::{LLAMA3_SPLIT_PATTERN, QWEN2_SPLIT_PATTERN};
use candle_core::quantized::gguf_file::Value as Field;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Type of a token, `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    /// Unused tokens, and the byte tokens of SentencePiece.
    Other,
}

/// Tokens in the order of their ids.
struct GgufVocabulary<'a> {
    tokens: Vec<&'a str>,
    /// Shorter than `tokens` if the file lacks types.
    token_types: Vec<TokenType>,
}

/// Builds a `tokenizer.json`.
///
/// # Errors
/// `Invalid` with the key that is missing or has an unsupported value.
pub fn read_tokenizer_json(gguf: &GgufFile) -> Result<Value> {
    let vocabulary = GgufVocabulary::read(gguf)?;
    let (mut tokenizer_json, default_on) =
        match gguf.require("tokenizer.ggml.model", gguf.str_value("tokenizer.ggml.model"))? {
            "gpt2" => (byte_level_bpe(gguf, &vocabulary)?, &[][..]),
            "llama" => (sentencepiece_bpe(gguf, &vocabulary)?, &["add_bos_token"][..]),
            other => {
                let supported = "known are gpt2, byte-level BPE, and llama, SentencePiece's";
                return gguf.unsupported(&format!("tokenizer.ggml.model \"{other}\" ({supported})"));
            }
        };
    tokenizer_json["version"] = json!("1.0");
    tokenizer_json["added_tokens"] = json!(vocabulary.added_tokens());
    tokenizer_json["post_processor"] = post_processor(gguf, &vocabulary.tokens, default_on)?;
    Ok(tokenizer_json)
}

/// Fields of a `tokenizer.json` that are specific to byte-level BPE.
fn byte_level_bpe(gguf: &GgufFile, vocabulary: &GgufVocabulary) -> Result<Value> {
    let merges = str_array(gguf, "tokenizer.ggml.merges")?;
    let pre_tokenization = pre_tokenization(gguf)?;
    Ok(json!({
        "normalizer": pre_tokenization.normalizer,
        "pre_tokenizer": pre_tokenization.pre_tokenizer,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "vocab": vocabulary.to_vocab_map(),
            "merges": merges,
            "ignore_merges": pre_tokenization.ignore_merges,
        },
    }))
}

impl<'a> GgufVocabulary<'a> {
    fn read(gguf: &'a GgufFile) -> Result<Self> {
        let type_values = gguf.metadata_value("tokenizer.ggml.token_type").and_then(|field| field.to_vec().ok());
        let to_token_type = |field: &Field| match value_as_u64(field) {
            Some(1) => TokenType::Normal,
            Some(2) => TokenType::Unknown,
            Some(3) => TokenType::Control,
            Some(4) => TokenType::UserDefined,
            _ => TokenType::Other,
        };
        let token_types = type_values.into_iter().flatten().map(to_token_type).collect();
        Ok(Self { tokens: str_array(gguf, "tokenizer.ggml.tokens")?, token_types })
    }

    /// Type of a token; normal if the file has none for it.
    fn token_type(&self, id: usize) -> TokenType {
        self.token_types.get(id).copied().unwrap_or(TokenType::Normal)
    }

    /// Ids and texts of the tokens of a type.
    fn tokens_of_type(&self, token_type: TokenType) -> impl Iterator<Item = (usize, &'a str)> {
        let tokens = self.tokens.iter().copied().enumerate();
        tokens.filter(move |(id, _)| self.token_type(*id) == token_type)
    }

    fn to_vocab_map(&self) -> serde_json::Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| ((*token).to_string(), json!(id))).collect()
    }

    /// `added_tokens`: tokens that are matched in the text before BPE.
    fn added_tokens(&self) -> Vec<Value> {
        let to_added_token = |(id, token): (usize, &&str)| {
            let token_type = self.token_type(id);
            matches!(token_type, TokenType::Unknown | TokenType::Control | TokenType::UserDefined).then(|| {
                json!({
                    "id": id, "content": token, "special": token_type != TokenType::UserDefined,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
        };
        self.tokens.iter().enumerate().filter_map(to_added_token).collect()
    }
}

fn str_array<'a>(gguf: &'a GgufFile, key: &str) -> Result<Vec<&'a str>> {
    let values = gguf.require(key, gguf.metadata_value(key).and_then(|field| field.to_vec().ok()))?;
    let as_text = |field: &'a Field| match field {
        Field::String(text) => Ok(text.as_str()),
        _ => Err(damaged_file_error(&gguf.path, &format!("{key} has something that is no text"))),
    };
    values.iter().map(as_text).collect()
}

/// Normalization and splitting before BPE.
struct PreTokenization {
    normalizer: Value,
    pre_tokenizer: Value,
    /// Whether words of the vocabulary become one token without merges.
    ignore_merges: bool,
}

fn pre_tokenization(gguf: &GgufFile) -> Result<PreTokenization> {
    let byte_level_step = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let followed_by_byte_level = |first: Value, use_regex: bool| json!({"type": "Sequence", "pretokenizers": [first, byte_level_step(use_regex)]});
    let split_on = |regex: &str| {
        followed_by_byte_level(
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}),
            false,
        )
    };
    let without_normalizer =
        |pre_tokenizer: Value| PreTokenization { normalizer: Value::Null, pre_tokenizer, ignore_merges: false };
    Ok(match gguf.str_value("tokenizer.ggml.pre").unwrap_or("default") {
        "gpt-2" | "default" => without_normalizer(byte_level_step(true)),
        "smollm" => {
            without_normalizer(followed_by_byte_level(json!({"type": "Digits", "individual_digits": true}), true))
        }
        "llama-bpe" | "llama3" | "llama-v3" => {
            PreTokenization { ignore_merges: true, ..without_normalizer(split_on(LLAMA3_SPLIT_PATTERN)) }
        }
        "qwen2" => {
            PreTokenization { normalizer: json!({"type": "NFC"}), ..without_normalizer(split_on(QWEN2_SPLIT_PATTERN)) }
        }
        other => {
            return gguf
                .unsupported(&format!("tokenizer.ggml.pre \"{other}\" (known are smollm, llama-bpe, qwen2, gpt-2)"));
        }
    })
}

/// Post-processor that adds begin- and end-of-text tokens. `default_on` are the flags that are on if the file lacks them.
fn post_processor(gguf: &GgufFile, tokens: &[&str], default_on: &[&str]) -> Result<Value> {
    let special_token = |name: &str, id: &str| {
        let (flag_key, id_key) = (format!("tokenizer.ggml.{name}"), format!("tokenizer.ggml.{id}"));
        if !gguf.bool_value(&flag_key).unwrap_or(default_on.contains(&name)) {
            return Ok(None);
        }
        let token_id = gguf.require(&id_key, gguf.u64_value(&id_key))? as usize;
        let token = gguf.require(&format!("the token that {id_key} names"), tokens.get(token_id))?;
        Ok::<_, crate::error::Error>(Some((*token, token_id)))
    };
    let (bos, eos) = (special_token("add_bos_token", "bos_token_id")?, special_token("add_eos_token", "eos_token_id")?);
    if bos.is_none() && eos.is_none() {
        return Ok(Value::Null);
    }
    let special_token_step =
        |token: &Option<(&str, usize)>| token.map(|(token, _)| json!({"SpecialToken": {"id": token, "type_id": 0}}));
    let sequence_step = |part: &str| Some(json!({"Sequence": {"id": part, "type_id": 0}}));
    let flatten_steps = |parts: Vec<Option<Value>>| parts.into_iter().flatten().collect::<Vec<Value>>();
    let template_for = |part: &str| [special_token_step(&bos), sequence_step(part), special_token_step(&eos)];
    let special_tokens: serde_json::Map<String, Value> = [&bos, &eos]
        .into_iter()
        .flatten()
        .map(|(token, id)| ((*token).to_string(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": flatten_steps(template_for("A").to_vec()),
        "pair": flatten_steps([template_for("A"), template_for("B")].concat()),
        "special_tokens": special_tokens,
    }))
}

/// SentencePiece's replacement of a space.
const METASPACE: &str = "\u{2581}";

/// Fields of a `tokenizer.json` that are specific to SentencePiece: pieces with scores, of which the best pair is merged first.
/// Text without pieces is encoded as bytes.
///
/// # Errors
/// `Invalid` if the scores are missing.
fn sentencepiece_bpe(gguf: &GgufFile, vocabulary: &GgufVocabulary) -> Result<Value> {
    const SCORES_KEY: &str = "tokenizer.ggml.scores";
    let raw_scores = gguf.metadata_value(SCORES_KEY).and_then(|field| field.to_vec().ok());
    let scores: Option<Vec<f32>> =
        raw_scores.map(|all| all.iter().map(|score| score.to_f32().unwrap_or(f32::NAN)).collect());
    let scores = gguf.require(SCORES_KEY, scores.filter(|scores| scores.len() == vocabulary.tokens.len()))?;
    let adds_space_prefix = gguf.bool_value("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let mut normalizers = vec![replace(" ", METASPACE)];
    let mut decoders = vec![replace(METASPACE, " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if adds_space_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": METASPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unk_token = vocabulary.tokens_of_type(TokenType::Unknown).next().map(|(_, token)| token);
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "vocab": vocabulary.to_vocab_map(),
            "merges": merges_by_score(vocabulary, &scores),
            "unk_token": unk_token,
            "fuse_unk": true,
            "byte_fallback": true,
        },
    }))
}

/// All pairs of pieces that form a third one, in the order of transformers' conversion: by score of the result, then longer halves
/// first.
fn merges_by_score(vocabulary: &GgufVocabulary, scores: &[f32]) -> Vec<[String; 2]> {
    let id_by_token: HashMap<&str, usize> =
        vocabulary.tokens_of_type(TokenType::Normal).map(|(id, token)| (token, id)).collect();
    let mut pairs = Vec::new();
    for (id, token) in vocabulary.tokens_of_type(TokenType::Normal) {
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let to_token_ids = |(left, right)| Some(([*id_by_token.get(left)?, *id_by_token.get(right)?], (left, right)));
        let mut valid_splits: Vec<([usize; 2], (&str, &str))> = splits.filter_map(to_token_ids).collect();
        valid_splits.sort_unstable();
        pairs.extend(valid_splits.into_iter().map(|(_, halves)| (scores[id], halves)));
    }
    let char_lengths = |(left, right): &(&str, &str)| [left.chars().count(), right.chars().count()];
    pairs.sort_by(|(score, halves), (other, others)| {
        other.total_cmp(score).then_with(|| char_lengths(others).cmp(&char_lengths(halves)))
    });
    pairs.into_iter().map(|(_, (left, right))| [left.to_string(), right.to_string()]).collect()
}
