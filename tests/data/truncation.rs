//! Lengths as the base's own tokenizer counts them.

use espalier::compute::candle::Candle;
use espalier::data::{Measure, Truncation};
use espalier::model::Base;
use std::path::Path;
use std::sync::Arc;

#[test]
fn a_text_is_measured_in_tokens_as_training_will_cut_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bert");
    let base = Base::load(&folder, "tiny-bert", Arc::new(Candle::cpu())).unwrap();
    let measure =
        |max_length, text, pair| Truncation { tokenizer: base.tokenizer(), max_length }.measure(text, pair).unwrap();
    let whole = measure(64, "where is my card", None);
    assert!(!whole.truncated && whole.tokens > 3, "{whole:?}");
    let cut = measure(whole.tokens - 1, "where is my card", None);
    assert!(cut.truncated);
    assert_eq!(cut.tokens, whole.tokens - 1);
    assert!(measure(64, "where is my card", Some("my card")).tokens > whole.tokens);
}
