//! Sequences of an owner beside a flood of another owner's.

use super::*;

/// Requests of the flood, far more than run at once.
const FLOOD: usize = 60;

fn flood_settings() -> Settings {
    Settings { max_running_sequences: 4, max_queued_sequences: FLOOD, ..settings() }
}

fn spec(first_token: u32, max_tokens: u32) -> RequestSpec {
    RequestSpec { adapter: 0, prompt: vec![first_token, 5, 6, 7], max_tokens }
}

#[test]
fn a_sequence_beside_a_flood_does_not_wait_for_it() {
    let (_lock, base, runtime) = (serialize_tests(), base("qwen2"), current_thread_runtime());
    let fixture = generator_fixture(&base, flood_settings());
    let (flood, other) = (Owner::from("flood"), Owner::from("other"));
    let first = spec(9, 8);
    let expected = runtime.block_on(fixture.submit_of(&other, &first).unwrap().collect()).unwrap().text;
    let mut streams: Vec<_> =
        (0..FLOOD).map(|index| fixture.submit_of(&flood, &spec(10 + index as u32, 64)).unwrap()).collect();
    for _ in 0..5 {
        let text = runtime.block_on(fixture.submit_of(&other, &first).unwrap().collect()).unwrap().text;
        assert_eq!(text, expected);
    }
    let queued = fixture.engine.stats().queued_sequences;
    assert!(queued > FLOOD as u64 / 2, "{queued} sequences of the flood wait still");
    let last = runtime.block_on(streams.pop().unwrap().collect()).unwrap();
    assert!(!last.tokens.is_empty(), "the flood is computed too");
}

#[test]
fn a_full_queue_refuses_the_flood_and_no_other_owner() {
    let (_lock, base) = (serialize_tests(), base("qwen2"));
    let fixture = generator_fixture(&base, Settings { max_queued_sequences: 10, ..flood_settings() });
    let (flood, other) = (Owner::from("flood"), Owner::from("other"));
    let admitted = fixture.engine.admit(&flood, 10).unwrap();
    assert_eq!(fixture.engine.admit(&flood, 1).err().map(|error| error.code()), Some("generation_queue_full"));
    let own = fixture.engine.admit(&other, 4).unwrap();
    assert!(fixture.engine.admit(&other, 1).is_ok());
    assert!(fixture.engine.admit(&other, 2).is_err(), "this is more than half of the queue");
    drop((admitted, own));
    assert!(fixture.engine.admit(&flood, 10).is_ok());
}
