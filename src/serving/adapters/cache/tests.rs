//! Values are strings, so that no base model is needed.

use super::*;
use futures_util::future::join_all;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::oneshot;

type TestCache = Arc<AdapterCache<String>>;

async fn get(cache: &TestCache, version: &str, bytes: u64) -> Pinned<String> {
    let value = version.to_string();
    cache.get_or_load(version, async move { Ok((value, bytes)) }).await.unwrap()
}

async fn must_not_load() -> Result<(String, u64)> {
    panic!("must not be loaded")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_lookups_of_a_version_load_it_once() {
    let cache: TestCache = AdapterCache::new(100);
    let loads = Arc::new(AtomicUsize::new(0));
    let lookup = |_| {
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
    let results = join_all((0..64).map(lookup)).await;
    let first = results[0].as_ref().unwrap();
    assert!(results.iter().all(|result| result.as_ref().unwrap().is_same(first)), "all have the same value");
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries, stats.bytes), (63, 1, 1, 10));
}

#[tokio::test]
async fn a_load_continues_when_its_first_caller_is_cancelled() {
    let cache: TestCache = AdapterCache::new(100);
    let (release, gate) = oneshot::channel::<()>();
    let load = async move {
        gate.await.unwrap();
        Ok(("a".to_string(), 10))
    };
    let mut cancelled_lookup = Box::pin(cache.get_or_load("a", load));
    assert!(futures_util::poll!(&mut cancelled_lookup).is_pending());
    drop(cancelled_lookup);
    let lookup = cache.get_or_load("a", must_not_load());
    release.send(()).unwrap();
    assert_eq!(*lookup.await.unwrap(), "a");
}

#[tokio::test]
async fn a_load_error_reaches_every_waiter_and_is_not_cached() {
    let cache: TestCache = AdapterCache::new(100);
    let (release, gate) = oneshot::channel::<()>();
    let load = async move {
        gate.await.unwrap();
        Err(Error::conflict("adapter_damaged", "a tensor is missing"))
    };
    let mut first = Box::pin(cache.get_or_load("a", load));
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut second = Box::pin(cache.get_or_load("a", must_not_load()));
    assert!(futures_util::poll!(&mut second).is_pending());
    release.send(()).unwrap();
    for result in [first.await, second.await] {
        assert_eq!(result.unwrap_err().code(), "adapter_damaged");
    }
    assert_eq!(*get(&cache, "a", 10).await, "a", "the next request tries again");
}

#[tokio::test]
async fn a_load_that_panics_is_an_error_and_is_not_cached() {
    let cache: TestCache = AdapterCache::new(100);
    let error = cache.get_or_load("a", async { panic!("out of luck") }).await.unwrap_err();
    assert!(error.to_string().contains("out of luck"), "{error}");
    assert_eq!(*get(&cache, "a", 10).await, "a");
}

#[tokio::test]
async fn an_adapter_in_use_is_not_evicted() {
    let cache: TestCache = AdapterCache::new(100);
    let used = get(&cache, "used", 60).await;
    drop(get(&cache, "idle", 40).await);
    drop(get(&cache, "new", 40).await);
    assert!(used.is_same(&cache.get_or_load("used", must_not_load()).await.unwrap()));
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.evictions), (100, 1), "the idle one was evicted, though it was used later");
}

#[tokio::test]
async fn the_capacity_holds_over_many_adapters() {
    let cache: TestCache = AdapterCache::new(100);
    for number in 0..50 {
        drop(get(&cache, &number.to_string(), 30).await);
        assert!(cache.stats().bytes <= 100);
    }
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.misses, stats.evictions), (3, 50, 47));
}

#[tokio::test]
async fn an_adapter_larger_than_the_capacity_is_served_uncached() {
    let cache: TestCache = AdapterCache::new(10);
    assert_eq!(*get(&cache, "large", 1000).await, "large");
    assert_eq!(*get(&cache, "large", 1000).await, "large");
    assert_eq!((cache.stats().bytes, cache.stats().misses), (0, 2));
}

#[tokio::test]
async fn an_invalidated_adapter_stays_with_its_users() {
    let cache: TestCache = AdapterCache::new(100);
    let used = get(&cache, "a", 10).await;
    cache.invalidate("a");
    assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 10), "a value in use takes memory");
    assert_eq!(*used, "a");
    let reloaded = get(&cache, "a", 10).await;
    assert!(!used.is_same(&reloaded));
}

#[tokio::test]
async fn a_load_invalidated_in_flight_is_returned_and_not_cached() {
    let cache: TestCache = AdapterCache::new(100);
    // Loads wait for the first one, which tells their size.
    drop(get(&cache, "first", 10).await);
    let (release, gate) = oneshot::channel::<()>();
    let load = async move {
        gate.await.unwrap();
        Ok(("old".to_string(), 10))
    };
    let mut lookup = Box::pin(cache.get_or_load("a", load));
    assert!(futures_util::poll!(&mut lookup).is_pending());
    cache.invalidate("a");
    let new = cache.get_or_load("a", async { Ok(("new".to_string(), 10)) }).await.unwrap();
    release.send(()).unwrap();
    assert_eq!(*lookup.await.unwrap(), "old");
    assert_eq!(*new, "new");
    assert_eq!(*cache.get_or_load("a", must_not_load()).await.unwrap(), "new");
}

#[tokio::test]
async fn adapters_in_use_bound_the_cache() {
    let cache: TestCache = AdapterCache::new(100);
    let lookup = |number: usize| {
        let cache = Arc::clone(&cache);
        async move {
            let found = cache.get_or_load(&number.to_string(), async move { Ok((number.to_string(), 30)) }).await;
            assert!(cache.stats().bytes <= 100 + 30, "the budget is exceeded by one adapter at most");
            found
        }
    };
    let (in_use, refused): (Vec<_>, Vec<_>) = join_all((0..20).map(lookup)).await.into_iter().partition(Result::is_ok);
    for result in refused {
        assert_eq!(result.unwrap_err().code(), "adapter_cache_full");
    }
    let mut in_use: Vec<Pinned<String>> = in_use.into_iter().map(Result::unwrap).collect();
    assert_eq!(in_use.len(), 4);
    let version = in_use[0].clone();
    assert!(
        cache.get_or_load(&version, must_not_load()).await.unwrap().is_same(&version),
        "adapters in use are served"
    );
    drop(version);
    in_use.clear();
    assert_eq!(
        (cache.stats().bytes, cache.stats().entries),
        (90, 3),
        "the cache is trimmed when adapters are released"
    );
    assert_eq!(*get(&cache, "new", 30).await, "new");
}
