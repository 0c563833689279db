use super::*;

type Lru = Arc<PinnedLru<&'static str>>;

fn lru() -> Lru {
    PinnedLru::new(100)
}

fn insert(lru: &Lru, key: &'static str, bytes: u64) -> Pinned<&'static str> {
    lru.insert(key, key, bytes)
}

#[test]
fn the_least_recently_used_is_evicted_first() {
    let lru = lru();
    for key in ["a", "b"] {
        drop(insert(&lru, key, 40));
    }
    drop(lru.get("a"));
    drop(insert(&lru, "c", 40));
    assert!(lru.get("b").is_none(), "a was used since");
    assert!(lru.get("a").is_some() && lru.get("c").is_some());
    assert_eq!(lru.stats(), Stats { entries: 2, bytes: 80, evictions: 1 });
}

#[test]
fn a_pinned_value_is_evicted_when_it_is_released() {
    let lru = lru();
    let pinned = insert(&lru, "pinned", 60);
    let clone = pinned.clone();
    let other = insert(&lru, "other", 60);
    assert_eq!(lru.stats().bytes, 120, "both are in use");
    drop(pinned);
    assert_eq!(lru.stats().bytes, 120, "a clone is in use");
    drop(clone);
    assert_eq!(lru.stats(), Stats { entries: 1, bytes: 60, evictions: 1 }, "nothing else was looked up");
    assert!(lru.get("other").is_some_and(|found| found.is_same(&other)));
}

#[test]
fn a_value_larger_than_the_budget_is_shared_while_it_is_in_use_and_evicts_nothing() {
    let lru = lru();
    drop(insert(&lru, "small", 100));
    let large = insert(&lru, "large", 101);
    assert!(lru.get("large").is_some_and(|found| found.is_same(&large)));
    assert_eq!(lru.stats().bytes, 201);
    drop(large);
    assert!(lru.get("large").is_none());
    assert!(lru.get("small").is_some());
    assert_eq!(lru.stats(), Stats { entries: 1, bytes: 100, evictions: 0 });
}

#[test]
fn inserting_a_key_again_does_not_count_its_bytes_twice() {
    let lru = lru();
    drop(insert(&lru, "a", 40));
    drop(insert(&lru, "a", 50));
    assert_eq!((lru.stats().bytes, lru.stats().entries), (50, 1));
}

#[test]
fn removed_and_uncached_values_are_counted_while_they_are_in_use() {
    let lru = lru();
    let (removed, uncached) = (insert(&lru, "a", 40), lru.pin_uncached("b", 30));
    lru.remove("a");
    assert!(lru.get("a").is_none());
    assert_eq!(lru.stats(), Stats { entries: 0, bytes: 70, evictions: 0 });
    drop((removed, uncached));
    assert_eq!(lru.stats().bytes, 0);
}

#[tokio::test]
async fn loads_wait_for_room_and_give_up_in_time() {
    let lru = lru();
    let pinned = [insert(&lru, "a", 50), insert(&lru, "b", 50)];
    drop(lru.wait_for_room().await.expect("the budget is not exceeded"));
    let third = insert(&lru, "c", 50);
    assert!(lru.wait_for_room().await.is_none(), "values in use exceed the budget");
    let mut waiting = Box::pin(lru.wait_for_room());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(third);
    assert!(waiting.await.is_some(), "a value was released");
    drop(pinned);
}

#[tokio::test]
async fn concurrent_loads_count_as_values_of_the_largest_size() {
    let lru = lru();
    let pinned = insert(&lru, "a", 60);
    let first = lru.wait_for_room().await.expect("one value is in use");
    assert!(lru.wait_for_room().await.is_none(), "the load may take 60 bytes");
    drop(first);
    assert!(lru.wait_for_room().await.is_some());
    drop(pinned);
}
