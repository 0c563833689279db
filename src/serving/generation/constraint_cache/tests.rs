use super::*;
use crate::serving::generation::token_encoding::TokenByteEncoding;
use espalier_core::model::BaseModel;
use espalier_tensor::backend::cpu::CpuBackend;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::LazyLock;

static OWNER: LazyLock<Owner> = LazyLock::new(|| Owner::from("a"));

fn cache(capacity_bytes: u64, threads: usize) -> ConstraintCache {
    let folder = espalier_testing::jobs::fixture("decoders").join("llama");
    let base = Arc::new(BaseModel::load(&folder, "llama", Arc::new(CpuBackend::detect())).unwrap());
    let token_encoding = TokenByteEncoding::detect(|token| base.tokenizer().token_to_id(token).is_some());
    ConstraintCache::new(ConstraintFactory::new(base, token_encoding), capacity_bytes, threads)
}

fn regex(length: usize) -> ConstraintSpec {
    ConstraintSpec::Regex(format!("[a-z]{{{length}}}"))
}

#[test]
fn the_key_depends_on_kind_and_text() {
    let specs = [
        ConstraintSpec::JsonObject,
        ConstraintSpec::JsonSchema(json!({"type": "object"})),
        ConstraintSpec::JsonSchema(json!({"type": "array"})),
        ConstraintSpec::Regex(r#"{"type":"object"}"#.to_string()),
        ConstraintSpec::Regex(String::new()),
    ];
    let keys: BTreeSet<String> = specs.iter().map(ConstraintSpec::cache_key).collect();
    assert_eq!(keys.len(), specs.len());
    assert_eq!(specs[1].cache_key(), ConstraintSpec::JsonSchema(json!({"type": "object"})).cache_key());
}

#[tokio::test]
async fn a_constraint_is_compiled_once() {
    let cache = cache(64 << 20, 1);
    let first = cache.compile(&OWNER, regex(3)).await.unwrap();
    assert!(first.bytes() > 0);
    assert!(cache.compile(&OWNER, regex(3)).await.unwrap().is_same(&first));
    assert!(!cache.compile(&OWNER, regex(4)).await.unwrap().is_same(&first));
    let (one, other) = tokio::join!(cache.compile(&OWNER, regex(5)), cache.compile(&OWNER, regex(5)));
    assert!(one.unwrap().is_same(&other.unwrap()));
}

#[tokio::test]
async fn constraints_in_use_bound_the_memory() {
    let cache = cache(1, 2);
    let in_use = cache.compile(&OWNER, regex(3)).await.unwrap();
    let refused = cache.compile(&OWNER, regex(4)).await.err().map(|error| error.code());
    assert_eq!(refused, Some("constraint_memory_full"));
    assert!(cache.compile(&OWNER, regex(3)).await.unwrap().is_same(&in_use), "those in use are shared");
    drop(in_use);
    cache.compile(&OWNER, regex(4)).await.unwrap();
}

#[tokio::test]
async fn a_dropped_request_compiles_nothing() {
    let cache = cache(64 << 20, 1);
    let permit = cache.compilers.acquire(&OWNER).await;
    let mut waiting = Box::pin(cache.compile(&OWNER, regex(3)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    drop(permit);
    cache.compile(&OWNER, regex(4)).await.unwrap();
    assert_eq!(cache.compiled.stats().entries, 1);
}

#[tokio::test]
async fn constraints_too_large_to_compile_are_refused() {
    let cache = cache(64 << 20, 1);
    let many_values = ConstraintSpec::JsonSchema(json!({"enum": (0..30_000).collect::<Vec<u32>>()}));
    let long_text = ConstraintSpec::JsonSchema(json!({"const": "a".repeat(300 << 10)}));
    let long_pattern = ConstraintSpec::Regex("a".repeat(300 << 10));
    for spec in [many_values, long_text, long_pattern] {
        assert_eq!(cache.compile(&OWNER, spec).await.err().map(|error| error.code()), Some("invalid_format"));
    }
}
