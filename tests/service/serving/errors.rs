//! Rejected and failed requests.

use super::*;
use espalier_core::error::Error;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_adapter_is_not_found_and_never_the_base() {
    let fixture = WorkerFixture::new().await;
    let serving = start(&fixture, settings());
    let Err(Error::NotFound(problem)) = predict(&serving, "unknown", &["text"]).await else {
        panic!("must not be found")
    };
    assert_eq!(problem.code, "adapter_not_found");
    assert_eq!(serving.stats().queued_inputs, 0, "a rejected request frees its queue capacity");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_adapter_fails_without_affecting_others() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "good", 3, 1).await;
    train(&fixture, "bad", 3, 2).await;
    let tensors = fixture
        .context
        .blobs
        .data_dir()
        .adapters_dir()
        .join(fixture.adapter_version("bad").await)
        .join("adapter_model.safetensors");
    let mut bytes = fs::read(&tensors).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&tensors, bytes).unwrap();
    let serving = start(&fixture, settings());
    let (bad, good) = tokio::join!(predict(&serving, "bad", &["text"]), predict(&serving, "good", &["text"]));
    assert_eq!(bad.unwrap_err().code(), "adapter_damaged");
    assert!(good.is_ok());
    assert_eq!(serving.stats().resident_adapters, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_adapter_is_not_found_even_while_it_is_resident() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "short-lived", 3, 1).await;
    let serving = start(&fixture, settings());
    let response = predict(&serving, "short-lived", &["text"]).await.unwrap();
    let adapter = response.adapter.unwrap();
    let deleted = fixture.store().delete_adapter(DEFAULT_OWNER, adapter.id).await.unwrap();
    assert_eq!(deleted.as_ref(), Some(&adapter.version));
    serving.invalidate_adapter(&adapter.version);
    assert_eq!(predict(&serving, "short-lived", &["text"]).await.unwrap_err().code(), "adapter_not_found");
    assert_eq!((serving.stats().resident_adapters, serving.stats().resident_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_in_flight_requests_and_rejects_new_ones() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "intents", 3, 1).await;
    let serving = start(&fixture, settings());
    let texts = vec!["where is my card"; 100];
    let mut request = Box::pin(predict(&serving, "intents", &texts));
    assert!(futures_util::poll!(&mut request).is_pending());
    let (response, ()) = tokio::join!(request, serving.drain());
    assert_eq!(response.unwrap().predictions.len(), 100);
    let Err(Error::Busy { problem, .. }) = predict(&serving, "intents", &["text"]).await else {
        panic!("must be busy")
    };
    assert_eq!(problem.code, "shutting_down");
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_predictions_are_busy() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "intents", 3, 1).await;
    let serving = start(&fixture, settings());
    let texts = vec!["where is my card"; 100];
    let mut request = Box::pin(predict(&serving, "intents", &texts));
    assert!(futures_util::poll!(&mut request).is_pending());
    serving.abort_requests();
    assert_eq!(request.await.unwrap_err().code(), "shutting_down");
    serving.drain().await;
    assert_eq!(serving.stats().queued_inputs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_is_busy_and_queued_requests_complete() {
    let fixture = WorkerFixture::new().await;
    train(&fixture, "intents", 3, 1).await;
    let serving = start(&fixture, Settings { max_queued_inputs: 40, ..settings() });
    let texts = vec!["where is my card"; 30];
    let responses = futures_util::future::join_all((0..8).map(|_| predict(&serving, "intents", &texts))).await;
    let (succeeded, busy): (Vec<_>, Vec<_>) = responses.into_iter().partition(Result::is_ok);
    assert!(!succeeded.is_empty() && !busy.is_empty());
    assert!(busy.into_iter().all(|rejected| rejected.unwrap_err().code() == "predictions_queue_full"));
    assert_eq!(serving.stats().queued_inputs, 0);
}
