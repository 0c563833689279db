//! Token counts with the base's tokenizer.

use espalier_core::dataset::{CountTokens, MaxLength, TokenCounter};
use espalier_core::model::BaseModel;
use espalier_core::task::{Config, Example, Target};
use espalier_tensor::backend::candle::CandleBackend;
use std::sync::Arc;

#[test]
fn token_counts_use_the_training_truncation() {
    let folder = espalier_testing::workspace().join("tests/fixtures/tiny-bert");
    let base = BaseModel::load(&folder, "tiny-bert", Arc::new(CandleBackend::cpu())).unwrap();
    let example = |text: &str, pair: Option<&str>| {
        let (text, text_pair) = (text.to_string(), pair.map(str::to_string));
        Example { line: 1, text, text_pair, target: Target::Label("a".to_string()) }
    };
    let task = Config::default();
    let count_tokens = |longest, text: &str, pair: Option<&str>| {
        let max_length = MaxLength::Covering { min: 4 };
        let counter = TokenCounter { tokenizer: base.tokenizer(), task: &task, max_length, longest };
        counter.count_tokens(&example(text, pair)).unwrap().remove(0)
    };
    let whole = count_tokens(64, "where is my card", None);
    assert!(!whole.truncated && whole.tokens > 3, "{whole:?}");
    let truncated = count_tokens(whole.tokens - 1, "where is my card", None);
    assert!(truncated.truncated);
    assert_eq!(truncated.tokens, whole.tokens - 1);
    assert!(count_tokens(64, "where is my card", Some("my card")).tokens > whole.tokens);
    let unknown = count_tokens(64, "where is my \u{1f600}", None).vocabulary;
    assert_eq!((unknown.unknown, whole.vocabulary.unknown), (1, 0), "{unknown:?}");
    assert_eq!(whole.vocabulary.tokens, whole.tokens - 2, "without [CLS] and [SEP]");
}
