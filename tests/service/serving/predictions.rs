//! Single requests.

use super::*;
use espalier_core::artifact::LoadedAdapter;

#[tokio::test(flavor = "multi_thread")]
async fn response_names_the_version_and_keeps_input_order() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "intents", 3, 1).await;
    let serving = start(&fixture, settings());
    let texts: Vec<String> = (0..60).map(|index| format!("{} card number {index}", "my ".repeat(index % 7))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let response = predict(&serving, "intents", &texts).await.unwrap();
    let version = fixture.adapter_version("intents").await;
    assert_eq!(response.adapter.as_ref().unwrap().version, version);
    let alone = LoadedAdapter::load(&fixture.load_artifact(&version), fixture.base()).unwrap();
    assert_close(&logits(&response), &alone.forward(fixture.base(), &inputs(&texts)).unwrap());
    assert!(serving.stats().batches > 1, "the request is larger than a batch");
    assert_eq!(serving.stats().batched_inputs, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn top_k_labels_are_sorted_by_score() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "intents", 3, 1).await;
    let serving = start(&fixture, settings());
    let options = PredictOptions { logits: LogitsOutput::Omit, ..PREDICT_OPTIONS };
    let response =
        serving.predict(DEFAULT_OWNER, Some(&by_name("intents")), inputs(&["where is it"]), options).await.unwrap();
    let Prediction::Classification(prediction) = &response.predictions[0] else { panic!("must be a classification") };
    assert_eq!(prediction.top.len(), 2);
    assert_eq!((&prediction.label, prediction.score), (&prediction.top[0].label, prediction.top[0].score));
    assert!(prediction.top[0].score >= prediction.top[1].score);
    assert_eq!(prediction.logits, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn base_model_returns_embeddings() {
    let fixture = WorkerFixture::new().await;
    let serving = start(&fixture, settings());
    let response = serving.predict(DEFAULT_OWNER, None, inputs(&["a", "b", "a"]), PREDICT_OPTIONS).await.unwrap();
    assert!(response.adapter.is_none());
    let rows = logits(&response);
    assert_eq!(rows[0].len(), fixture.base().info().hidden_size);
    assert_close(&rows[..1], &rows[2..]);
    assert_ne!(rows[0], rows[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn name_resolves_to_the_newest_version() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "moving", 3, 1).await;
    let old = fixture.adapter_version("moving").await;
    let serving = start(&fixture, settings());
    let before = predict(&serving, "moving", &["where is it"]).await.unwrap();
    train(&fixture, "moving", 4, 2).await;
    let after = predict(&serving, "moving", &["where is it"]).await.unwrap();
    assert_eq!(logits(&after)[0].len(), 4);
    let pinned = Reference::parse(&format!("moving@{}", &old[..8])).unwrap();
    let pinned =
        serving.predict(DEFAULT_OWNER, Some(&pinned), inputs(&["where is it"]), PREDICT_OPTIONS).await.unwrap();
    assert_eq!(pinned.adapter.unwrap().version, old);
    assert_close(
        &logits(&before),
        &pinned
            .predictions
            .iter()
            .map(|prediction| match prediction {
                Prediction::Classification(prediction) => prediction.logits.clone().unwrap(),
                _ => panic!("must be a classification"),
            })
            .collect::<Vec<_>>(),
    );
}
