//! Concurrent clients of several adapters while other adapters are trained, published and deleted.

use super::*;
use espalier_core::artifact::LoadedAdapter;
use espalier_tensor::seeded_rng::SeededRng;
use std::collections::BTreeMap;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const TEXTS: [&str; 4] = ["where is my card", "why was I charged for this transfer twice", "help", "cash cash cash"];

/// The outputs of each adapter for single requests.
async fn expected_outputs(fixture: &WorkerFixture) -> BTreeMap<&'static str, Vec<Vec<f32>>> {
    let mut outputs = BTreeMap::new();
    for name in NAMES {
        let loaded =
            LoadedAdapter::load(&fixture.load_artifact(&fixture.adapter_version(name).await), fixture.base()).unwrap();
        outputs.insert(name, loaded.forward(fixture.base(), &inputs(&TEXTS)).unwrap());
    }
    outputs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_outputs_equal_single_request_outputs() {
    let fixture = WorkerFixture::new().await;
    for (number, name) in NAMES.into_iter().enumerate() {
        train(&fixture, name, 2 + number % 4, number as u64 + 1).await;
    }
    let expected = Arc::new(expected_outputs(&fixture).await);
    // The cache holds about three adapters, so that adapters are evicted and loaded again throughout the test.
    let adapter_bytes =
        LoadedAdapter::load(&fixture.load_artifact(&fixture.adapter_version("a").await), fixture.base())
            .unwrap()
            .tensor_bytes();
    let serving = start(&fixture, Settings { adapter_cache_bytes: adapter_bytes * 7 / 2, ..settings() });
    let client = |number: u64| {
        let (serving, expected) = (serving.clone(), Arc::clone(&expected));
        async move {
            let mut random = SeededRng::new(number, &["client"]);
            for _ in 0..20 {
                let (name, text) = (NAMES[random.uniform_below(NAMES.len())], random.uniform_below(TEXTS.len()));
                let response = predict(&serving, name, &TEXTS[text..=text]).await.unwrap();
                assert_close(&logits(&response), &expected[name][text..=text]);
            }
        }
    };
    let clients: Vec<_> = (0..16).map(|number| tokio::spawn(client(number))).collect();
    // Other adapters are published and deleted at the same time.
    for seed in 10..13 {
        train(&fixture, "passing", 3, seed).await;
        let adapter = predict(&serving, "passing", &["text"]).await.unwrap().adapter.unwrap();
        let version = fixture.store().delete_adapter(DEFAULT_OWNER, adapter.id).await.unwrap().unwrap();
        serving.invalidate_adapter(&version);
        fixture.context.blobs.data_dir().remove_adapter(&version).unwrap();
    }
    for client in clients {
        client.await.unwrap();
    }
    let stats = serving.stats();
    assert!(stats.evictions > 0 && stats.cache_hits > 0, "{stats:?}");
    assert!(stats.batches < stats.batched_inputs, "some batches have several inputs: {stats:?}");
    assert_eq!(stats.queued_inputs, 0);
    serving.drain().await;
}
