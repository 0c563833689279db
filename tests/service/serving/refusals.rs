//! What is not answered, and why.

use super::*;
use espalier_core::error::Error;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_adapter_is_not_found_and_never_the_base() {
    let house = House::new().await;
    let serving = start(&house, settings());
    let Err(Error::NotFound(problem)) = ask(&serving, "nobody", &["text"]).await else { panic!("must not be found") };
    assert_eq!(problem.code, "adapter_not_found");
    assert_eq!(serving.stats().waiting, 0, "a refused request gives its place back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_adapter_is_refused_and_the_others_answer() {
    let house = House::new().await;
    train(&house, "good", 3, 1).await;
    train(&house, "bad", 3, 2).await;
    let tensors = house.workshop.folder.adapters().join(house.version("bad").await).join("adapter_model.safetensors");
    let mut bytes = fs::read(&tensors).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&tensors, bytes).unwrap();
    let serving = start(&house, settings());
    let (bad, good) = tokio::join!(ask(&serving, "bad", &["text"]), ask(&serving, "good", &["text"]));
    assert_eq!(bad.unwrap_err().code(), "adapter_damaged");
    assert!(good.is_ok());
    assert_eq!(serving.stats().resident_adapters, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_adapter_is_not_found_even_while_it_is_resident() {
    let house = House::new().await;
    train(&house, "short-lived", 3, 1).await;
    let serving = start(&house, settings());
    let answer = ask(&serving, "short-lived", &["text"]).await.unwrap();
    let adapter = answer.adapter.unwrap();
    let gone = house.store().delete_adapter(DEFAULT_OWNER, adapter.id).await.unwrap();
    assert_eq!(gone.as_ref(), Some(&adapter.description.version));
    serving.forget(&adapter.description.version);
    assert_eq!(ask(&serving, "short-lived", &["text"]).await.unwrap_err().code(), "adapter_not_found");
    assert_eq!((serving.stats().resident_adapters, serving.stats().resident_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_service_answers_what_is_under_way_and_nothing_more() {
    let house = House::new().await;
    train(&house, "intents", 3, 1).await;
    let serving = start(&house, settings());
    let texts = vec!["where is my card"; 100];
    let mut request = Box::pin(ask(&serving, "intents", &texts));
    assert!(futures_util::poll!(&mut request).is_pending());
    let (answer, ()) = tokio::join!(request, serving.drain());
    assert_eq!(answer.unwrap().predictions.len(), 100);
    let Err(Error::Busy { problem, .. }) = ask(&serving, "intents", &["text"]).await else { panic!("must be busy") };
    assert_eq!(problem.code, "shutting_down");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_wait_is_busy_and_the_rest_is_answered() {
    let house = House::new().await;
    train(&house, "intents", 3, 1).await;
    let serving = start(&house, Settings { max_waiting: 40, ..settings() });
    let texts = vec!["where is my card"; 30];
    let answers = futures_util::future::join_all((0..8).map(|_| ask(&serving, "intents", &texts))).await;
    let (answered, busy): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!answered.is_empty() && !busy.is_empty());
    assert!(busy.into_iter().all(|refused| refused.unwrap_err().code() == "predictions_queue_full"));
    assert_eq!(serving.stats().waiting, 0);
}
