//! SentencePiece's BPE (Kudo & Richardson 2018), as Llama 2 and Mistral have it: pieces with scores, of which the best pair is
//! merged first. As transformers converts it: merges are all ways to put a piece together from two others, best piece first;
//! what has no piece is written in bytes.

use super::{Kind, Vocabulary};
use crate::error::Result;
use crate::model::gguf::Gguf;
use serde_json::{Value, json};
use std::collections::HashMap;

/// What stands for a space.
const SPACE: &str = "\u{2581}";

/// The parts of a `tokenizer.json` that are SentencePiece's own.
///
/// # Errors
/// `Invalid` where the scores are missing.
pub fn read(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let listed = gguf.field(SCORES).and_then(|field| field.to_vec().ok());
    let scores: Option<Vec<f32>> =
        listed.map(|all| all.iter().map(|score| score.to_f32().unwrap_or(f32::NAN)).collect());
    let scores = gguf.needed(SCORES, scores.filter(|scores| scores.len() == vocabulary.tokens.len()))?;
    let is_prefixed = gguf.switch("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let mut normalizers = vec![replace(" ", SPACE)];
    let mut decoders = vec![replace(SPACE, " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if is_prefixed {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocabulary.of(Kind::Unknown).next().map(|(_, token)| token);
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "vocab": vocabulary.ids(),
            "merges": merges(vocabulary, &scores),
            "unk_token": unknown,
            "fuse_unk": true,
            "byte_fallback": true,
        },
    }))
}

/// Best first; of ways to the same piece those with longer halves, as transformers sorts them.
fn merges(vocabulary: &Vocabulary, scores: &[f32]) -> Vec<[String; 2]> {
    let normal: HashMap<&str, usize> = vocabulary.of(Kind::Normal).map(|(id, token)| (token, id)).collect();
    let mut pairs = Vec::new();
    for (id, token) in vocabulary.of(Kind::Normal) {
        let halves = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let with_ids = |(left, right)| Some(([*normal.get(left)?, *normal.get(right)?], (left, right)));
        let mut known: Vec<([usize; 2], (&str, &str))> = halves.filter_map(with_ids).collect();
        known.sort_unstable();
        pairs.extend(known.into_iter().map(|(_, halves)| (scores[id], halves)));
    }
    let lengths = |(left, right): &(&str, &str)| [left.chars().count(), right.chars().count()];
    pairs.sort_by(|(score, halves), (other, others)| {
        other.total_cmp(score).then_with(|| lengths(others).cmp(&lengths(halves)))
    });
    pairs.into_iter().map(|(_, (left, right))| [left.to_string(), right.to_string()]).collect()
}
