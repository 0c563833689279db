//! No base is needed: a value is a word here.

use super::*;
use futures_util::future::join_all;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::oneshot;

type Words = Arc<Cache<String>>;

async fn get(cache: &Words, version: &str, bytes: u64) -> Arc<String> {
    let value = version.to_string();
    cache.get_or_load(version, async move { Ok((value, bytes)) }).await.unwrap()
}

async fn never() -> Result<(String, u64)> {
    panic!("must not be loaded")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_is_loaded_once_however_many_ask() {
    let cache: Words = Cache::new(100);
    let loads = Arc::new(AtomicUsize::new(0));
    let ask = |_| {
        let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
        tokio::spawn(async move {
            let load = async move {
                loads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(("a".to_string(), 10))
            };
            cache.get_or_load("a", load).await.unwrap()
        })
    };
    let answers = join_all((0..64).map(ask)).await;
    let first = answers[0].as_ref().unwrap();
    assert!(answers.iter().all(|answer| Arc::ptr_eq(answer.as_ref().unwrap(), first)), "all have the same value");
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.resident, stats.bytes), (63, 1, 1, 10));
}

#[tokio::test]
async fn the_load_goes_on_when_the_one_who_asked_goes_away() {
    let cache: Words = Cache::new(100);
    let (go, gate) = oneshot::channel::<()>();
    let load = async move {
        gate.await.unwrap();
        Ok(("a".to_string(), 10))
    };
    let mut impatient = Box::pin(cache.get_or_load("a", load));
    assert!(futures_util::poll!(&mut impatient).is_pending());
    drop(impatient);
    let patient = cache.get_or_load("a", never());
    go.send(()).unwrap();
    assert_eq!(*patient.await.unwrap(), "a");
}

#[tokio::test]
async fn an_error_goes_to_all_who_wait_and_is_not_remembered() {
    let cache: Words = Cache::new(100);
    let (go, gate) = oneshot::channel::<()>();
    let load = async move {
        gate.await.unwrap();
        Err(Error::conflict("adapter_damaged", "a tensor is missing"))
    };
    let mut first = Box::pin(cache.get_or_load("a", load));
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut second = Box::pin(cache.get_or_load("a", never()));
    assert!(futures_util::poll!(&mut second).is_pending());
    go.send(()).unwrap();
    for answer in [first.await, second.await] {
        assert_eq!(answer.unwrap_err().code(), "adapter_damaged");
    }
    assert_eq!(*get(&cache, "a", 10).await, "a", "the next request tries again");
}

#[tokio::test]
async fn a_load_that_panics_is_an_error_and_is_not_remembered() {
    let cache: Words = Cache::new(100);
    let error = cache.get_or_load("a", async { panic!("out of luck") }).await.unwrap_err();
    assert!(error.to_string().contains("out of luck"), "{error}");
    assert_eq!(*get(&cache, "a", 10).await, "a");
}

#[tokio::test]
async fn an_adapter_in_use_is_not_put_out() {
    let cache: Words = Cache::new(100);
    let used = get(&cache, "used", 60).await;
    drop(get(&cache, "idle", 40).await);
    drop(get(&cache, "new", 40).await);
    assert!(Arc::ptr_eq(&used, &cache.get_or_load("used", never()).await.unwrap()));
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.evictions), (100, 1), "the idle one went, though it was used later");
}

#[tokio::test]
async fn the_budget_holds_over_many_adapters() {
    let cache: Words = Cache::new(100);
    for number in 0..50 {
        drop(get(&cache, &number.to_string(), 30).await);
        assert!(cache.stats().bytes <= 100);
    }
    let stats = cache.stats();
    assert_eq!((stats.resident, stats.misses, stats.evictions), (3, 50, 47));
}

#[tokio::test]
async fn an_adapter_larger_than_the_budget_is_served_all_the_same() {
    let cache: Words = Cache::new(10);
    assert_eq!(*get(&cache, "large", 1000).await, "large");
    assert_eq!(*get(&cache, "large", 1000).await, "large");
    assert_eq!((cache.stats().bytes, cache.stats().misses), (0, 2));
}

#[tokio::test]
async fn forgetting_leaves_the_adapter_to_who_uses_it() {
    let cache: Words = Cache::new(100);
    let used = get(&cache, "a", 10).await;
    cache.forget("a");
    assert_eq!((cache.stats().resident, cache.stats().bytes), (0, 0));
    assert_eq!(*used, "a");
    let again = get(&cache, "a", 10).await;
    assert!(!Arc::ptr_eq(&used, &again));
}

#[tokio::test]
async fn a_load_that_is_forgotten_meanwhile_is_answered_and_not_kept() {
    let cache: Words = Cache::new(100);
    let (go, gate) = oneshot::channel::<()>();
    let load = async move {
        gate.await.unwrap();
        Ok(("old".to_string(), 10))
    };
    let mut asked = Box::pin(cache.get_or_load("a", load));
    assert!(futures_util::poll!(&mut asked).is_pending());
    cache.forget("a");
    let new = cache.get_or_load("a", async { Ok(("new".to_string(), 10)) }).await.unwrap();
    go.send(()).unwrap();
    assert_eq!(*asked.await.unwrap(), "old");
    assert_eq!(*new, "new");
    assert_eq!(*cache.get_or_load("a", never()).await.unwrap(), "new");
}
