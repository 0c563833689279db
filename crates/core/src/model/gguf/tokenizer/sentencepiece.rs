//! SentencePiece's BPE (Kudo & Richardson 2018), as Llama 2 and Mistral have it: pieces with scores, of which the best pair is
//! merged first. As transformers converts it: merges are all ways to put a piece together from two others, best piece first;
//! what has no piece is written in bytes.

use super::{GgufVocabulary, TokenType};
use crate::error::Result;
use crate::model::gguf::GgufFile;
use serde_json::{Value, json};
use std::collections::HashMap;

/// What stands for a space.
const METASPACE: &str = "\u{2581}";

/// The parts of a `tokenizer.json` that are SentencePiece's own.
///
/// # Errors
/// `Invalid` where the scores are missing.
pub fn sentencepiece_bpe(gguf: &GgufFile, vocabulary: &GgufVocabulary) -> Result<Value> {
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

/// Best first; of ways to the same piece those with longer halves, as transformers sorts them.
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
