//! `tokenizer.json` from the `vocab.txt` of a checkpoint that has none: WordPiece as in BERT, or the residues of ESM-2.
//!
//! A `vocab.txt` has one token per line, whose number is its id.

use crate::error::Result;
use crate::model::checkpoint_files::{damaged_file_error, read_optional_json, read_optional_text};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const VOCABULARY_FILE: &str = "vocab.txt";

/// Settings of a `tokenizer_config.json`, with the defaults of transformers.
#[derive(Deserialize)]
#[serde(default)]
struct WordPieceSettings {
    do_lower_case: bool,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: bool,
}

impl Default for WordPieceSettings {
    fn default() -> Self {
        Self { do_lower_case: true, strip_accents: None, tokenize_chinese_chars: true }
    }
}

/// Tokens that begin, separate and end sequences, and those that are never split.
struct SpecialTokens {
    start: &'static str,
    end: &'static str,
    unknown: &'static str,
    others: &'static [&'static str],
    /// Separators between two texts.
    between: &'static [&'static str],
}

const BERT: SpecialTokens =
    SpecialTokens { start: "[CLS]", end: "[SEP]", unknown: "[UNK]", others: &["[PAD]", "[MASK]"], between: &["[SEP]"] };
const MPNET: SpecialTokens = SpecialTokens {
    start: "<s>",
    end: "</s>",
    unknown: "[UNK]",
    others: &["<pad>", "<unk>", "<mask>"],
    between: &["</s>", "</s>"],
};
const ESM: SpecialTokens = SpecialTokens {
    start: "<cls>",
    end: "<eos>",
    unknown: "<unk>",
    others: &["<pad>", "<mask>", "<null_1>"],
    between: &["<eos>"],
};

/// Builds a `tokenizer.json` from the folder's `vocab.txt`; `None` if there is none.
///
/// # Errors
/// `Invalid` (`base_model_damaged`) for a vocabulary without the special tokens of BERT, MPNet or ESM-2.
pub fn tokenizer_json(folder: &Path) -> Result<Option<Value>> {
    let path = folder.join(VOCABULARY_FILE);
    let Some(text) = read_optional_text(&path)? else { return Ok(None) };
    let vocabulary = Vocabulary::parse(&text);
    let has_tokens = |special: &SpecialTokens| {
        [special.start, special.end, special.unknown].iter().all(|token| vocabulary.id_of(token).is_some())
    };
    if has_tokens(&ESM) {
        return Ok(Some(residue_tokenizer(&vocabulary)));
    }
    let Some(special) = [&BERT, &MPNET].into_iter().find(|special| has_tokens(special)) else {
        let reason = "it has neither the special tokens of BERT and MPNet ([CLS] or <s>, [UNK]) nor those of ESM-2 (<cls>, <eos>): save the \
            tokenizer as tokenizer.json with transformers (AutoTokenizer.from_pretrained(…).save_pretrained(…))";
        return Err(damaged_file_error(&path, reason));
    };
    Ok(Some(word_piece_tokenizer(&vocabulary, special, &read_settings(folder)?)))
}

fn read_settings(folder: &Path) -> Result<WordPieceSettings> {
    let path = folder.join("tokenizer_config.json");
    match read_optional_json(&path)? {
        Value::Null => Ok(WordPieceSettings::default()),
        settings => serde_json::from_value(settings).map_err(|error| damaged_file_error(&path, &error.to_string())),
    }
}

/// Tokens and their ids.
struct Vocabulary<'a> {
    ids: BTreeMap<&'a str, usize>,
}

impl<'a> Vocabulary<'a> {
    fn parse(text: &'a str) -> Self {
        // A token that occurs twice has its last id, as in transformers.
        Self { ids: text.lines().enumerate().map(|(id, token)| (token.trim_end_matches('\r'), id)).collect() }
    }

    fn id_of(&self, token: &str) -> Option<usize> {
        self.ids.get(token).copied()
    }

    /// Fields that all tokenizers have. `second_type` is the token type of the second text.
    fn common_fields(&self, special: &SpecialTokens, second_type: u8) -> Value {
        let all_special =
            [special.start, special.end, special.unknown].into_iter().chain(special.others.iter().copied());
        let mut added: Vec<(usize, &str)> = all_special.filter_map(|token| Some((self.id_of(token)?, token))).collect();
        added.sort_unstable();
        let added_tokens = added.iter().map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        });
        let added_tokens: Vec<Value> = added_tokens.collect();
        let token = |token: &str, type_id: u8| json!({"SpecialToken": {"id": token, "type_id": type_id}});
        let text = |id: &str, type_id: u8| json!({"Sequence": {"id": id, "type_id": type_id}});
        let single = vec![token(special.start, 0), text("A", 0), token(special.end, 0)];
        let mut pair = vec![token(special.start, 0), text("A", 0)];
        pair.extend(special.between.iter().map(|separator| token(separator, 0)));
        pair.extend([text("B", second_type), token(special.end, second_type)]);
        let ids = |token: &str| json!({"id": token, "ids": [self.id_of(token)], "tokens": [token]});
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added_tokens,
            "post_processor": {
                "type": "TemplateProcessing", "single": single, "pair": pair,
                "special_tokens": {special.start: ids(special.start), special.end: ids(special.end)},
            },
        })
    }
}

/// WordPiece (Wu et al. 2016) with the normalization of BERT.
fn word_piece_tokenizer(vocabulary: &Vocabulary, special: &SpecialTokens, settings: &WordPieceSettings) -> Value {
    let second_type = u8::from(special.between.len() == 1);
    let mut tokenizer = vocabulary.common_fields(special, second_type);
    tokenizer["normalizer"] = json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": settings.tokenize_chinese_chars,
        "strip_accents": settings.strip_accents, "lowercase": settings.do_lower_case,
    });
    tokenizer["pre_tokenizer"] = json!({"type": "BertPreTokenizer"});
    tokenizer["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    tokenizer["model"] = json!({
        "type": "WordPiece", "unk_token": special.unknown, "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocabulary.ids,
    });
    tokenizer
}

/// One token per residue; a run of characters that are no residues is one unknown token.
fn residue_tokenizer(vocabulary: &Vocabulary) -> Value {
    let residues = vocabulary.ids.keys().filter_map(|token| token.parse::<char>().ok());
    let escape = |residue: char| if residue.is_alphanumeric() { residue.to_string() } else { format!("\\{residue}") };
    let residue_class: String = residues.map(escape).collect();
    let mut tokenizer = vocabulary.common_fields(&ESM, 0);
    tokenizer["normalizer"] = Value::Null;
    tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Split", "pattern": {"Regex": format!("[{residue_class}]")}, "behavior": "Isolated", "invert": false},
    ]});
    tokenizer["decoder"] = Value::Null;
    tokenizer["model"] = json!({"type": "WordLevel", "vocab": vocabulary.ids, "unk_token": ESM.unknown});
    tokenizer
}

#[cfg(test)]
mod tests {
    use crate::model::Tokenizer;
    use std::path::Path;

    fn load(files: &[(&str, &str)]) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        Tokenizer::load(folder.path()).unwrap().0
    }

    const ESM_VOCABULARY: &str = "<cls>\n<pad>\n<eos>\n<unk>\nL\nA\nG\nV\nS\nE\nR\nT\nI\nD\nP\nK\nQ\nN\nF\nY\nM\nH\nW\nC\nX\nB\nU\nZ\nO\n.\n-\n\
        <null_1>\n<mask>\n";

    #[test]
    fn residues_are_encoded_as_by_transformers() {
        let tokenizer = load(&[("vocab.txt", ESM_VOCABULARY)]);
        // From EsmTokenizer of transformers 5.23, for which residues in lower case are unknown: here they are read in upper case.
        let expected: [(&str, &[u32]); 8] = [
            ("MKT LLIL", &[0, 20, 15, 11, 4, 4, 12, 4, 2]),
            ("mkt", &[0, 20, 15, 11, 2]),
            ("MJJT", &[0, 20, 3, 11, 2]),
            ("A-B.", &[0, 5, 30, 25, 29, 2]),
            ("M<mask>K", &[0, 20, 32, 15, 2]),
            ("M <mask> K", &[0, 20, 32, 15, 2]),
            (" MK\nT", &[0, 20, 15, 11, 2]),
            ("MkT", &[0, 20, 15, 11, 2]),
        ];
        for (text, ids) in expected {
            assert_eq!(tokenizer.encode(text, None, 100).unwrap().ids, ids, "{text}");
        }
        assert_eq!(tokenizer.encode("MK", Some("AL"), 100).unwrap().ids, [0, 20, 15, 2, 5, 4, 2]);
    }

    #[test]
    fn word_pieces_equal_those_of_the_tokenizer_json() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bert");
        let from_json = Tokenizer::load(&folder).unwrap().0;
        let mut tokens: Vec<(String, u32)> = from_json.vocabulary().get_vocab(true).into_iter().collect();
        tokens.sort_by_key(|(_, id)| *id);
        let vocabulary: String = tokens.iter().map(|(token, _)| format!("{token}\n")).collect();
        let from_vocabulary =
            load(&[("vocab.txt", &vocabulary), ("tokenizer_config.json", "{\"do_lower_case\": true}")]);
        for text in ["Where is my card?", "Héllo  Wörld, don't", "東京 [MASK] x", ""] {
            for pair in [None, Some("another text")] {
                let encode = |tokenizer: &Tokenizer| tokenizer.encode(text, pair, 100).unwrap();
                assert_eq!(encode(&from_vocabulary), encode(&from_json), "{text}");
            }
        }
    }

    #[test]
    fn the_case_of_letters_follows_the_settings() {
        let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nA\n";
        let cased = load(&[("vocab.txt", vocabulary), ("tokenizer_config.json", "{\"do_lower_case\": false}")]);
        let uncased = load(&[("vocab.txt", vocabulary)]);
        assert_eq!(cased.encode("A a", None, 10).unwrap().ids, [2, 6, 5, 3]);
        assert_eq!(uncased.encode("A a", None, 10).unwrap().ids, [2, 5, 5, 3]);
    }

    #[test]
    fn other_vocabularies_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vocab.txt"), "a\nb\n").unwrap();
        let error = Tokenizer::load(folder.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains("save_pretrained"), "{error}");
    }
}
