//! Many adapters, many clients, one job training, adapters coming and going.

use super::*;
use espalier_core::artifact::LoadedAdapter;
use espalier_tensor::seeded_rng::SeededRng;
use std::collections::BTreeMap;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const TEXTS: [&str; 4] = ["where is my card", "why was I charged for this transfer twice", "help", "cash cash cash"];

/// What every adapter answers alone.
async fn expected_outputs(fixture: &WorkerFixture) -> BTreeMap<&'static str, Vec<Vec<f32>>> {
    let mut answers = BTreeMap::new();
    for name in NAMES {
        let adapted =
            LoadedAdapter::load(&fixture.load_artifact(&fixture.adapter_version(name).await), fixture.base()).unwrap();
        answers.insert(name, adapted.forward(fixture.base(), &inputs(&TEXTS)).unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_outputs_equal_single_request_outputs() {
    let fixture = WorkerFixture::new().await;
    for (number, name) in NAMES.into_iter().enumerate() {
        train(&fixture, name, 2 + number % 4, number as u64 + 1).await;
    }
    let expected = Arc::new(expected_outputs(&fixture).await);
    // Room for about three of them, so that adapters are put out and loaded again all the time.
    let one = LoadedAdapter::load(&fixture.load_artifact(&fixture.adapter_version("a").await), fixture.base())
        .unwrap()
        .tensor_bytes();
    let serving = start(&fixture, Settings { adapter_cache_bytes: one * 7 / 2, ..settings() });
    let client = |number: u64| {
        let (serving, expected) = (serving.clone(), Arc::clone(&expected));
        async move {
            let mut random = SeededRng::new(number, &["client"]);
            for _ in 0..20 {
                let (name, text) = (NAMES[random.uniform_below(NAMES.len())], random.uniform_below(TEXTS.len()));
                let answer = predict(&serving, name, &TEXTS[text..=text]).await.unwrap();
                assert_close(&logits(&answer), &expected[name][text..=text]);
            }
        }
    };
    let clients: Vec<_> = (0..16).map(|number| tokio::spawn(client(number))).collect();
    // Meanwhile others are published and deleted.
    for seed in 10..13 {
        train(&fixture, "passing", 3, seed).await;
        let adapter = predict(&serving, "passing", &["text"]).await.unwrap().adapter.unwrap();
        let gone = fixture.store().delete_adapter(DEFAULT_OWNER, adapter.id).await.unwrap().unwrap();
        serving.invalidate_adapter(&gone);
        fixture.context.data_folder.remove_adapter(&gone).unwrap();
    }
    for client in clients {
        client.await.unwrap();
    }
    let stats = serving.stats();
    assert!(stats.evictions > 0 && stats.cache_hits > 0, "{stats:?}");
    assert!(stats.batches < stats.batched_inputs, "some were computed together: {stats:?}");
    assert_eq!(stats.queued_inputs, 0);
    serving.drain().await;
}
