//! Lengths as the base's own tokenizer counts them.

use espalier_core::data::{Measure, Truncation};
use espalier_core::model::Base;
use espalier_core::task::{Config, Example, Target};
use espalier_tensor::candle::Candle;
use std::sync::Arc;

#[test]
fn a_text_is_measured_in_tokens_as_training_will_cut_it() {
    let folder = espalier_testing::workspace().join("tests/fixtures/tiny-bert");
    let base = Base::load(&folder, "tiny-bert", Arc::new(Candle::cpu())).unwrap();
    let measure = |max_length, text: &str, pair: Option<&str>| {
        let (text, text_pair) = (text.to_string(), pair.map(str::to_string));
        let example = Example { line: 1, text, text_pair, target: Target::Label("a".to_string()) };
        let task = Config::default();
        let truncation = Truncation { tokenizer: base.tokenizer(), task: &task, max_length };
        truncation.measure(&example).unwrap().remove(0)
    };
    let whole = measure(64, "where is my card", None);
    assert!(!whole.truncated && whole.tokens > 3, "{whole:?}");
    let cut = measure(whole.tokens - 1, "where is my card", None);
    assert!(cut.truncated);
    assert_eq!(cut.tokens, whole.tokens - 1);
    assert!(measure(64, "where is my card", Some("my card")).tokens > whole.tokens);
}
