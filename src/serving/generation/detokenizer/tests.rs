//! The deltas together are the text of all tokens, whatever the tokens are.

use super::*;
use espalier_tensor::seeded_rng::SeededRng;
use std::cell::Cell;

const TEXTS: [&str; 6] = [
    "",
    "the end",
    "é€x 😀😀 the stop\n\n",
    "👩‍👩‍👧‍👦 flags 🇩🇪🇫🇷 and ŵ𝄞",
    "日本語のテキスト、そして中文。",
    "aaab ababab ststop sto\u{fffd}p",
];

fn no_stop_conditions() -> StopConditions {
    StopConditions { max_tokens: u32::MAX, ..StopConditions::default() }
}

fn stop_at(stop_sequences: &[&str]) -> StopConditions {
    StopConditions { stop_sequences: stop_sequences.iter().map(ToString::to_string).collect(), ..no_stop_conditions() }
}

/// All text, and the finish reason.
fn detokenize(
    decode: impl Fn(&[u32]) -> String,
    stop_conditions: StopConditions,
    ids: &[u32],
) -> (String, Option<FinishReason>) {
    let mut detokenizer = Detokenizer::new(decode, &[], stop_conditions);
    let mut text = String::new();
    for id in ids {
        let delta = detokenizer.push(*id);
        text += &delta.text;
        if delta.finish_reason.is_some() {
            assert_eq!(detokenizer.push(*id).text + &detokenizer.flush(), "");
            return (text, delta.finish_reason);
        }
    }
    (text + &detokenizer.flush(), None)
}

#[test]
fn every_character_is_emitted_as_soon_as_it_is_complete() {
    for (text, seed) in TEXTS.iter().flat_map(|text| (0..200).map(move |seed| (text, seed))) {
        let ids = encode_randomly(text, &mut SeededRng::new(seed, &["text"]));
        let mut detokenizer = Detokenizer::new(decode_byte_level, &[], no_stop_conditions());
        let mut emitted = String::new();
        for (count, id) in (1..).zip(&ids) {
            emitted += &detokenizer.push(*id).text;
            let complete = decode_byte_level(&ids[..count]);
            assert_eq!(emitted, complete.trim_end_matches('\u{fffd}'), "{ids:?}");
            if text.contains('\u{fffd}') {
                break;
            }
        }
        assert_eq!(detokenize(decode_byte_level, no_stop_conditions(), &ids).0, *text, "{ids:?}");
    }
}

#[test]
fn random_tokens_decode_incrementally_as_they_do_at_once() {
    for seed in 0..2000 {
        let mut random = SeededRng::new(seed, &["garbage"]);
        let first = [0, 0x70, 0x80, 0xe0][random.uniform_below(4)];
        let ids: Vec<u32> = (0..150)
            .map(|_| match random.uniform_below(10) {
                0 => SPECIAL,
                1 => 256 + random.uniform_below(14) as u32,
                _ => first + random.uniform_below(256 - first as usize) as u32,
            })
            .collect();
        assert_eq!(detokenize(decode_byte_level, no_stop_conditions(), &ids).0, decode_byte_level(&ids), "{ids:?}");
    }
}

#[test]
fn the_work_per_token_is_bounded() {
    let euro = [0xe2, 0x82, 0xac];
    let kinds: [&[u32]; 7] =
        [&[b'a' as u32], &[SPECIAL], &[0x80], &euro, &[0xe2], &[256, SPECIAL], &[0xef, 0xbf, 0xbd]];
    for kind in kinds {
        let longest = Cell::new(0);
        let decode = |ids: &[u32]| {
            longest.set(longest.get().max(ids.len()));
            decode_byte_level(ids)
        };
        let ids: Vec<u32> = kind.iter().copied().cycle().take(3000).collect();
        assert_eq!(detokenize(decode, no_stop_conditions(), &ids).0, decode_byte_level(&ids));
        assert!(longest.get() <= 24, "{kind:?}: {}", longest.get());
    }
}

#[test]
fn sentencepiece_tokens_decode_incrementally_as_they_do_at_once() {
    for seed in 0..1000 {
        let mut random = SeededRng::new(seed, &["pieces"]);
        let mut ids = vec![SPECIAL; random.uniform_below(4)];
        while ids.len() < 60 {
            match random.uniform_below(14) {
                0 => ids.push(SPECIAL),
                1..5 => ids.extend(["😀", "€", "ŵ", "語"][random.uniform_below(4)].bytes().map(u32::from)),
                other => ids.push(256 + (other - 5) as u32 % SENTENCEPIECE_VOCABULARY.len() as u32),
            }
        }
        assert_eq!(
            detokenize(decode_sentencepiece, no_stop_conditions(), &ids).0,
            decode_sentencepiece(&ids),
            "{ids:?}"
        );
    }
}

#[test]
fn invalid_utf8_does_not_corrupt_later_sentencepiece_tokens() {
    for seed in 0..500 {
        let mut random = SeededRng::new(seed, &["no text"]);
        let ids: Vec<u32> = (0..80).map(|_| 0x70 + random.uniform_below(0x98) as u32).collect();
        let ids = [ids, vec![256, 257]].concat();
        assert!(detokenize(decode_sentencepiece, no_stop_conditions(), &ids).0.ends_with(" Hello world"), "{ids:?}");
    }
}

#[test]
fn the_text_continues_the_prompt() {
    let (hello, world) = (256, 257);
    let first_text =
        |prompt: &[u32]| Detokenizer::new(decode_sentencepiece, prompt, no_stop_conditions()).push(world).text;
    assert_eq!(first_text(&[]), "world");
    assert_eq!(first_text(&[hello]), " world");
    assert_eq!(first_text(&[world; 50]), " world");
    let mut detokenizer = Detokenizer::new(decode_sentencepiece, &[hello], no_stop_conditions());
    let deltas: Vec<TextDelta> = [world, 260].into_iter().map(|id| detokenizer.push(id)).collect();
    assert_eq!((deltas[0].offset, deltas[1].offset), (0, 6), "offsets are those of the answer");
}

#[test]
fn prompt_context_does_not_start_inside_a_character() {
    let text = "語😀€é語語😀";
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    for (cut, _) in text.char_indices() {
        let mut detokenizer = Detokenizer::new(decode_sentencepiece, &ids[..cut], no_stop_conditions());
        let remaining: String = ids[cut..].iter().map(|id| detokenizer.push(*id).text).collect();
        assert_eq!(remaining, text[cut..]);
    }
}

#[test]
fn a_stop_sequence_is_removed_wherever_tokens_end() {
    let cases: [(&str, &[&str]); 6] = [
        ("the stop the end", &["stop", "top "]),
        ("aaaab", &["aab"]),
        ("x😀😀 é€", &["😀 é", "€"]),
        ("one\n\ntwo", &["\n\n"]),
        ("ststststop", &["stst", "tstop"]),
        ("é€ sto", &["stop", "€€"]),
    ];
    for (text, stop_sequences) in cases {
        let find_stop = |stop: &&str| text.find(*stop).map(|start| (start + stop.len(), start));
        let first = stop_sequences.iter().filter_map(find_stop).min();
        for seed in 0..300 {
            let ids = encode_randomly(text, &mut SeededRng::new(seed, &["stops"]));
            let (excluded, finish_reason) = detokenize(decode_byte_level, stop_at(stop_sequences), &ids);
            assert_eq!(excluded, first.map_or(text, |(_, start)| &text[..start]), "{ids:?}");
            assert_eq!(finish_reason, first.map(|_| FinishReason::Stop));
            let included = detokenize(
                decode_byte_level,
                StopConditions { stop_output: StopOutput::Include, ..stop_at(stop_sequences) },
                &ids,
            )
            .0;
            assert_eq!(included, first.map_or(text, |(end, _)| &text[..end]), "{ids:?}");
        }
    }
}

#[test]
fn a_stop_token_ends_the_text_and_flushes_pending_text() {
    let ids = [b's' as u32, b't' as u32, 0xe2, SPECIAL, b'x' as u32];
    let stop_conditions = StopConditions { stop_token_ids: vec![SPECIAL], ..stop_at(&["st\u{fffd}o"]) };
    assert_eq!(detokenize(decode_byte_level, stop_conditions, &ids), ("st\u{fffd}".into(), Some(FinishReason::Stop)));
    for (stop_text, text) in [(StopOutput::Exclude, "a"), (StopOutput::Include, "a the")] {
        let stop_conditions =
            StopConditions { stop_token_ids: vec![257], stop_output: stop_text, ..max_tokens_only(9) };
        assert_eq!(
            detokenize(decode_byte_level, stop_conditions, &[b'a' as u32, 257, 258]),
            (text.into(), Some(FinishReason::Stop))
        );
    }
}

fn max_tokens_only(max_tokens: u32) -> StopConditions {
    StopConditions { max_tokens, ..StopConditions::default() }
}

#[test]
fn reaching_max_tokens_flushes_pending_text() {
    let (s, t, o, p) = (b's' as u32, b't' as u32, b'o' as u32, b'p' as u32);
    let with_max_tokens = |max_tokens, ids: &[u32]| {
        detokenize(decode_byte_level, StopConditions { max_tokens, ..stop_at(&["stop"]) }, ids)
    };
    assert_eq!(with_max_tokens(3, &[s, t, o, p]), ("sto".into(), Some(FinishReason::Length)));
    assert_eq!(with_max_tokens(4, &[s, t, o, p]), (String::new(), Some(FinishReason::Stop)));
    assert_eq!(with_max_tokens(5, &[s, t, o]), ("sto".into(), None));
    assert_eq!(with_max_tokens(2, &[s, 0xe2, 0x82]), ("s\u{fffd}".into(), Some(FinishReason::Length)));
    let stop_conditions = StopConditions { stop_token_ids: vec![SPECIAL], ..max_tokens_only(2) };
    assert_eq!(detokenize(decode_byte_level, stop_conditions, &[s, SPECIAL]), ("s".into(), Some(FinishReason::Stop)));
}

#[test]
fn a_stop_sequence_is_matched_in_flushed_text() {
    let stop_conditions = StopConditions { max_tokens: 2, ..stop_at(&["s\u{fffd}"]) };
    assert_eq!(
        detokenize(decode_byte_level, stop_conditions, &[b's' as u32, 0xe2]),
        (String::new(), Some(FinishReason::Stop))
    );
}

#[test]
fn token_offsets_are_those_of_their_characters() {
    // "é", the beginning of "€"; its middle; its end; a special token; " the"; "x"
    let ids = [266, 0x82, 0xac, SPECIAL, 257, b'x' as u32];
    let mut detokenizer = Detokenizer::new(decode_byte_level, &[], no_stop_conditions());
    let deltas: Vec<TextDelta> = ids.into_iter().map(|id| detokenizer.push(id)).collect();
    assert_eq!(deltas.iter().map(|piece| piece.offset).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 6]);
    assert_eq!(deltas.iter().map(|piece| piece.text.as_str()).collect::<Vec<_>>(), ["é", "", "€", "", " the", "x"]);
}

// Small tokenizers: byte-level with merges, and SentencePiece with byte fallback.

/// Ids below 256 are bytes.
const MERGES: [&[u8]; 10] =
    [b"the", b" the", b" a", b"ab", b"aab", b"\n\n", b"st", b"op", "é".as_bytes(), "😀".as_bytes()];
/// Tokens that begin or end inside a character: "é" with the beginning of "€", the end of "€" with "x", the middle of
/// "😀", and the end of "€" with the beginning of "😀".
const SPLIT_CHARACTERS: [&[u8]; 4] = [&[0xc3, 0xa9, 0xe2], &[0x82, 0xac, b'x'], &[0x9f, 0x98], &[0xac, 0xf0, 0x9f]];
const SPECIAL: u32 = 999;

/// Decodes as a byte-level tokenizer does, with invalid bytes replaced.
fn decode_byte_level(ids: &[u32]) -> String {
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
fn encode_randomly(text: &str, random: &mut SeededRng) -> Vec<u32> {
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
const SENTENCEPIECE_VOCABULARY: [&str; 8] = ["▁Hello", "▁world", "world", "▁", "!", "é", "▁a", "b"];

/// Decodes as SentencePiece does: every byte of a run that is not UTF-8 is replaced, and the first space of the text is
/// dropped.
fn decode_sentencepiece(ids: &[u32]) -> String {
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
