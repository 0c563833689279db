//! The probable encoding of bytes that are no UTF-8.

use encoding_rs::{EUC_KR, Encoding, GBK, KOI8_R, SHIFT_JIS, WINDOWS_1251, WINDOWS_1252};
use std::ops::RangeInclusive;

/// Guesses the encoding of a text from some of its lines: that of Japanese, Korean, Chinese or Cyrillic where the bytes are those of its
/// usual characters, else windows-1252.
pub(super) fn probable_encoding(sample: &[u8]) -> &'static Encoding {
    let is_usual = |encoding: &'static Encoding, characters: RangeInclusive<char>, share: f64| {
        let text = encoding.decode_without_bom_handling_and_without_replacement(sample);
        let foreign: Vec<char> =
            text.iter().flat_map(|text| text.chars()).filter(|character| !character.is_ascii()).collect();
        let usual = foreign.iter().filter(|character| characters.contains(character)).count();
        usual > 0 && usual as f64 >= share * foreign.len() as f64
    };
    if is_usual(SHIFT_JIS, '\u{3040}'..='\u{30ff}', 0.25) {
        return SHIFT_JIS;
    }
    // Western words have one or two letters beyond ASCII side by side.
    if mean_run_length(sample) < 3.0 {
        return WINDOWS_1252;
    }
    let share_of = |bytes: RangeInclusive<u8>| {
        let high = sample.iter().filter(|byte| !byte.is_ascii()).count();
        sample.iter().filter(|byte| bytes.contains(byte)).count() as f64 / high.max(1) as f64
    };
    if is_usual(EUC_KR, '\u{ac00}'..='\u{d7a3}', 0.8) {
        return EUC_KR;
    }
    // Most letters of a text are small: these bytes in windows-1251, and those from 0xc0 to 0xdf in KOI8-R.
    let (small, capital) = (share_of(0xe0..=0xff), share_of(0xc0..=0xdf));
    match small + capital >= 0.9 {
        true if small > 0.7 => WINDOWS_1251,
        true if capital > 0.7 => KOI8_R,
        _ if is_usual(GBK, '\u{4e00}'..='\u{9fff}', 0.7) => GBK,
        _ => WINDOWS_1252,
    }
}

/// Mean number of bytes beyond ASCII that stand side by side.
fn mean_run_length(sample: &[u8]) -> f64 {
    let runs = sample.split(u8::is_ascii).filter(|run| !run.is_empty());
    let (bytes, count) = runs.fold((0, 0), |(bytes, count), run| (bytes + run.len(), count + 1));
    f64::from(bytes as u32) / f64::from(count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_characters_of_a_script_decide() {
        for (text, encoding) in [
            ("größer,a\nschön,b\n", WINDOWS_1252),
            ("It’s “fine” – really,ok\n", WINDOWS_1252),
            ("ランプはとても良い,pos\n椅子が壊れた,neg\n", SHIFT_JIS),
            ("램프가 고장났어요,neg\n의자가 가벼워요,pos\n", EUC_KR),
            ("灯坏了,neg\n椅子很轻也很安静,pos\n", GBK),
            ("Лампа сломалась,neg\nСтул лёгкий и тихий,pos\n", WINDOWS_1251),
            ("Лампа сломалась,neg\nСтул легкий и тихий,pos\n", KOI8_R),
        ] {
            let bytes = encoding.encode(text).0;
            assert_eq!(probable_encoding(&bytes), encoding, "{text}");
        }
        assert_eq!(probable_encoding(b"\xff\n\x81"), WINDOWS_1252);
    }
}
