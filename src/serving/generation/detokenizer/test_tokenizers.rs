//! Small tokenizers for tests: byte-level with merges, and SentencePiece with byte fallback.

use espalier_tensor::seeded_rng::SeededRng;

/// Ids below 256 are bytes.
const MERGES: [&[u8]; 10] =
    [b"the", b" the", b" a", b"ab", b"aab", b"\n\n", b"st", b"op", "é".as_bytes(), "😀".as_bytes()];
/// Tokens that begin or end inside a character: "é" with the beginning of "€", the end of "€" with "x", the middle of
/// "😀", and the end of "€" with the beginning of "😀".
const SPLIT_CHARACTERS: [&[u8]; 4] = [&[0xc3, 0xa9, 0xe2], &[0x82, 0xac, b'x'], &[0x9f, 0x98], &[0xac, 0xf0, 0x9f]];
pub const SPECIAL: u32 = 999;

/// Decodes as a byte-level tokenizer does, with invalid bytes replaced.
pub fn decode_byte_level(ids: &[u32]) -> String {
    let mut bytes = Vec::new();
    for id in ids.iter().filter(|id| **id != SPECIAL) {
        match *id as usize {
            byte @ 0..256 => bytes.push(byte as u8),
            other => bytes.extend(MERGES.iter().chain(&SPLIT_CHARACTERS).nth(other - 256).unwrap().iter()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Encodes `text` with tokens chosen at random from those that fit, and special tokens in between.
pub fn encode_randomly(text: &str, random: &mut SeededRng) -> Vec<u32> {
    let mut remaining = text.as_bytes();
    let mut ids = Vec::new();
    while !remaining.is_empty() {
        let tokens = MERGES.iter().chain(&SPLIT_CHARACTERS).zip(256..);
        let candidates: Vec<_> = tokens.filter(|(token, _)| remaining.starts_with(token)).collect();
        let (length, id) = match candidates.get(random.uniform_below(candidates.len() + 1)) {
            Some((token, id)) => (token.len(), *id),
            None => (1, u32::from(remaining[0])),
        };
        ids.push(id);
        ids.extend((random.uniform_below(12) == 0).then_some(SPECIAL));
        remaining = &remaining[length..];
    }
    ids
}

/// Tokens from id 256 on; smaller ids are byte tokens.
pub const SENTENCEPIECE_VOCABULARY: [&str; 8] = ["▁Hello", "▁world", "world", "▁", "!", "é", "▁a", "b"];

/// Decodes as SentencePiece does: every byte of a run that is not UTF-8 is replaced, and the first space of the text is
/// dropped.
pub fn decode_sentencepiece(ids: &[u32]) -> String {
    let ids: Vec<u32> = ids.iter().copied().filter(|id| *id != SPECIAL).collect();
    let mut text = String::new();
    for run in ids.chunk_by(|one, other| (*one < 256) == (*other < 256)) {
        if run[0] < 256 {
            let bytes: Vec<u8> = run.iter().map(|id| *id as u8).collect();
            text += &String::from_utf8(bytes).unwrap_or_else(|_| "\u{fffd}".repeat(run.len()));
        } else {
            run.iter().for_each(|id| text += &SENTENCEPIECE_VOCABULARY[*id as usize - 256].replace('▁', " "));
        }
    }
    text.strip_prefix(' ').map(String::from).unwrap_or(text)
}
