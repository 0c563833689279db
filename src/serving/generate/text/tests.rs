//! Whatever the tokens, the pieces together are the text of all of them.

use super::toys::{self, SPECIAL};
use super::*;
use espalier_tensor::random::Random;
use std::cell::Cell;

const TEXTS: [&str; 6] = [
    "",
    "the end",
    "é€x 😀😀 the stop\n\n",
    "👩‍👩‍👧‍👦 flags 🇩🇪🇫🇷 and ŵ𝄞",
    "日本語のテキスト、そして中文。",
    "aaab ababab ststop sto\u{fffd}p",
];

fn limits() -> Limits {
    Limits { max_tokens: u32::MAX, ..Limits::default() }
}

fn stopping(stops: &[&str]) -> Limits {
    Limits { stops: stops.iter().map(ToString::to_string).collect(), ..limits() }
}

/// The whole text, and why it ended.
fn written(decode: impl Fn(&[u32]) -> String, limits: Limits, ids: &[u32]) -> (String, Option<Finish>) {
    let mut writer = Writer::new(decode, &[], limits);
    let mut text = String::new();
    for id in ids {
        let piece = writer.push(*id);
        text += &piece.text;
        if piece.finished.is_some() {
            assert_eq!(writer.push(*id).text + &writer.end(), "");
            return (text, piece.finished);
        }
    }
    (text + &writer.end(), None)
}

#[test]
fn every_character_is_written_as_soon_as_it_is_complete() {
    for (text, seed) in TEXTS.iter().flat_map(|text| (0..200).map(move |seed| (text, seed))) {
        let ids = toys::encode(text, &mut Random::new(seed, &["text"]));
        let mut writer = Writer::new(toys::bytes, &[], limits());
        let mut so_far = String::new();
        for (count, id) in (1..).zip(&ids) {
            so_far += &writer.push(*id).text;
            let complete = toys::bytes(&ids[..count]);
            assert_eq!(so_far, complete.trim_end_matches('\u{fffd}'), "{ids:?}");
            if text.contains('\u{fffd}') {
                break;
            }
        }
        assert_eq!(written(toys::bytes, limits(), &ids).0, *text, "{ids:?}");
    }
}

#[test]
fn tokens_at_random_are_written_as_they_are_decoded_at_once() {
    for seed in 0..2000 {
        let mut random = Random::new(seed, &["garbage"]);
        let first = [0, 0x70, 0x80, 0xe0][random.below(4)];
        let ids: Vec<u32> = (0..150)
            .map(|_| match random.below(10) {
                0 => SPECIAL,
                1 => 256 + random.below(14) as u32,
                _ => first + random.below(256 - first as usize) as u32,
            })
            .collect();
        assert_eq!(written(toys::bytes, limits(), &ids).0, toys::bytes(&ids), "{ids:?}");
    }
}

#[test]
fn the_work_for_a_token_does_not_grow() {
    let euro = [0xe2, 0x82, 0xac];
    let kinds: [&[u32]; 7] =
        [&[b'a' as u32], &[SPECIAL], &[0x80], &euro, &[0xe2], &[256, SPECIAL], &[0xef, 0xbf, 0xbd]];
    for kind in kinds {
        let longest = Cell::new(0);
        let decode = |ids: &[u32]| {
            longest.set(longest.get().max(ids.len()));
            toys::bytes(ids)
        };
        let ids: Vec<u32> = kind.iter().copied().cycle().take(3000).collect();
        assert_eq!(written(decode, limits(), &ids).0, toys::bytes(&ids));
        assert!(longest.get() <= 24, "{kind:?}: {}", longest.get());
    }
}

#[test]
fn pieces_and_their_bytes_are_written_as_they_are_decoded_at_once() {
    for seed in 0..1000 {
        let mut random = Random::new(seed, &["pieces"]);
        let mut ids = vec![SPECIAL; random.below(4)];
        while ids.len() < 60 {
            match random.below(14) {
                0 => ids.push(SPECIAL),
                1..5 => ids.extend(["😀", "€", "ŵ", "語"][random.below(4)].bytes().map(u32::from)),
                other => ids.push(256 + (other - 5) as u32 % toys::PIECES.len() as u32),
            }
        }
        assert_eq!(written(toys::pieces, limits(), &ids).0, toys::pieces(&ids), "{ids:?}");
    }
}

#[test]
fn bytes_that_are_no_text_do_no_harm_to_pieces() {
    for seed in 0..500 {
        let mut random = Random::new(seed, &["no text"]);
        let ids: Vec<u32> = (0..80).map(|_| 0x70 + random.below(0x98) as u32).collect();
        let ids = [ids, vec![256, 257]].concat();
        assert!(written(toys::pieces, limits(), &ids).0.ends_with(" Hello world"), "{ids:?}");
    }
}

#[test]
fn the_text_goes_on_from_the_prompt() {
    let (hello, world) = (256, 257);
    let first = |prompt: &[u32]| Writer::new(toys::pieces, prompt, limits()).push(world).text;
    assert_eq!(first(&[]), "world");
    assert_eq!(first(&[hello]), " world");
    assert_eq!(first(&[world; 50]), " world");
    let mut writer = Writer::new(toys::pieces, &[hello], limits());
    let pieces: Vec<Piece> = [world, 260].into_iter().map(|id| writer.push(id)).collect();
    assert_eq!((pieces[0].offset, pieces[1].offset), (0, 6), "offsets are those of the answer");
}

#[test]
fn a_prompt_is_not_taken_from_the_middle_of_a_character() {
    let text = "語😀€é語語😀";
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    for (cut, _) in text.char_indices() {
        let mut writer = Writer::new(toys::pieces, &ids[..cut], limits());
        let rest: String = ids[cut..].iter().map(|id| writer.push(*id).text).collect();
        assert_eq!(rest, text[cut..]);
    }
}

#[test]
fn a_stop_string_is_cut_off_wherever_the_tokens_end() {
    let cases: [(&str, &[&str]); 6] = [
        ("the stop the end", &["stop", "top "]),
        ("aaaab", &["aab"]),
        ("x😀😀 é€", &["😀 é", "€"]),
        ("one\n\ntwo", &["\n\n"]),
        ("ststststop", &["stst", "tstop"]),
        ("é€ sto", &["stop", "€€"]),
    ];
    for (text, stops) in cases {
        let find = |stop: &&str| text.find(*stop).map(|start| (start + stop.len(), start));
        let first = stops.iter().filter_map(find).min();
        for seed in 0..300 {
            let ids = toys::encode(text, &mut Random::new(seed, &["stops"]));
            let (cut, finish) = written(toys::bytes, stopping(stops), &ids);
            assert_eq!(cut, first.map_or(text, |(_, start)| &text[..start]), "{ids:?}");
            assert_eq!(finish, first.map(|_| Finish::Stop));
            let kept = written(toys::bytes, Limits { stop_text: StopText::Keep, ..stopping(stops) }, &ids).0;
            assert_eq!(kept, first.map_or(text, |(end, _)| &text[..end]), "{ids:?}");
        }
    }
}

#[test]
fn a_stop_token_ends_the_text_and_frees_what_was_held() {
    let ids = [b's' as u32, b't' as u32, 0xe2, SPECIAL, b'x' as u32];
    let limits = Limits { stop_ids: vec![SPECIAL], ..stopping(&["st\u{fffd}o"]) };
    assert_eq!(written(toys::bytes, limits, &ids), ("st\u{fffd}".into(), Some(Finish::Stop)));
    for (stop_text, text) in [(StopText::Cut, "a"), (StopText::Keep, "a the")] {
        let limits = Limits { stop_ids: vec![257], stop_text, ..limits_of(9) };
        assert_eq!(written(toys::bytes, limits, &[b'a' as u32, 257, 258]), (text.into(), Some(Finish::Stop)));
    }
}

fn limits_of(max_tokens: u32) -> Limits {
    Limits { max_tokens, ..Limits::default() }
}

#[test]
fn the_last_token_allowed_frees_what_was_held() {
    let (s, t, o, p) = (b's' as u32, b't' as u32, b'o' as u32, b'p' as u32);
    let at_most = |max_tokens, ids: &[u32]| written(toys::bytes, Limits { max_tokens, ..stopping(&["stop"]) }, ids);
    assert_eq!(at_most(3, &[s, t, o, p]), ("sto".into(), Some(Finish::Length)));
    assert_eq!(at_most(4, &[s, t, o, p]), (String::new(), Some(Finish::Stop)));
    assert_eq!(at_most(5, &[s, t, o]), ("sto".into(), None));
    assert_eq!(at_most(2, &[s, 0xe2, 0x82]), ("s\u{fffd}".into(), Some(Finish::Length)));
    let last = Limits { stop_ids: vec![SPECIAL], ..limits_of(2) };
    assert_eq!(written(toys::bytes, last, &[s, SPECIAL]), ("s".into(), Some(Finish::Stop)));
}

#[test]
fn a_stop_string_may_end_in_what_is_freed_last() {
    let limits = Limits { max_tokens: 2, ..stopping(&["s\u{fffd}"]) };
    assert_eq!(written(toys::bytes, limits, &[b's' as u32, 0xe2]), (String::new(), Some(Finish::Stop)));
}

#[test]
fn tokens_begin_where_their_character_does() {
    // "é", the beginning of "€"; its middle; its end; a special token; " the"; "x"
    let ids = [266, 0x82, 0xac, SPECIAL, 257, b'x' as u32];
    let mut writer = Writer::new(toys::bytes, &[], limits());
    let pieces: Vec<Piece> = ids.into_iter().map(|id| writer.push(id)).collect();
    assert_eq!(pieces.iter().map(|piece| piece.offset).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 6]);
    assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<Vec<_>>(), ["é", "", "€", "", " the", "x"]);
}
