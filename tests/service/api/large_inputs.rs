//! Tests of inputs that are far longer than what counts: they are answered like their start, or refused, without the work of
//! reading all of them.

use crate::api::generation::start_with_decoder;
use crate::api::kill_points::wait_until;
use crate::api::server_process::{ServerConfig, ServerProcess};
use serde_json::{Value, json};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SENTENCE: &str = "where is my card, and why was I charged for the transfer? ";

/// Longest time for a request of 15 MB; reading its JSON takes most of it. Tokenizing all of it takes a minute.
const FAST: Duration = Duration::from_secs(15);

fn thread_count(app: &ServerProcess) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", app.pid())).unwrap().count()
}

#[test]
fn a_very_long_text_is_answered_like_its_start() {
    let app = ServerConfig::new().start();
    let long = SENTENCE.repeat((15 << 20) / SENTENCE.len());
    let started = Instant::now();
    let answer = app.post("/predict", &json!({"inputs": [long, {"text": "a card", "text_pair": long[..1 << 19]}]}));
    assert!(started.elapsed() < FAST, "answered after {:?}", started.elapsed());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let start = &long[..SENTENCE.len() * 100];
    let expected = app.post("/predict", &json!({"inputs": [start, {"text": "a card", "text_pair": start}]}));
    assert_eq!(answer.json()["predictions"], expected.json()["predictions"]);
}

#[test]
fn a_text_without_a_cut_point_is_refused_with_its_pointer() {
    let app = ServerConfig::new().with_arguments(&["--max-text", "100kB"]).start();
    let refused = app.post("/predict", &json!({"inputs": ["a card", "a".repeat(200_000)]}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("text_too_long")), "{}", refused.text());
    assert_eq!(refused.json()["errors"][0]["pointer"], "/inputs/1");
    let spaces = format!("a{}card", " ".repeat(200_000));
    assert_eq!(app.post("/predict", &json!({"inputs": [spaces]})).json()["code"], "text_too_long");
    assert_eq!(app.post("/predict", &json!({"inputs": ["a".repeat(9_000)]})).status, 200);
}

#[test]
fn a_very_long_prompt_is_refused_without_tokenizing_all_of_it() {
    let app = start_with_decoder("llama", &[]);
    let long = SENTENCE.repeat((15 << 20) / SENTENCE.len());
    let started = Instant::now();
    let refused = app.post("/generate", &json!({"inputs": [long]}));
    assert!(started.elapsed() < FAST, "answered after {:?}", started.elapsed());
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("too_long")), "{}", refused.text());
    let conversation = json!({"messages": [{"role": "user", "content": long}]});
    assert_eq!(app.post("/generate", &json!({"inputs": [conversation]})).json()["code"], "too_long");
    assert!(started.elapsed() < 3 * FAST, "answered after {:?}", started.elapsed());
}

/// A schema that takes a while to compile, different for each number.
fn large_schema(number: usize) -> Value {
    let properties: serde_json::Map<String, Value> = (0..400)
        .map(|index| {
            (
                format!("field_{number}_{index}"),
                json!({"type": "string", "pattern": format!("^[a-z]{{{}}}$", 1 + index % 9)}),
            )
        })
        .collect();
    let required: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

#[test]
fn many_large_schemas_are_compiled_by_few_threads() {
    let app = start_with_decoder("llama", &["--serving-threads", "2", "--constraint-memory", "64MiB"]);
    let request = |number: usize| {
        let format = json!({"type": "json_schema", "json_schema": {"schema": large_schema(number)}});
        json!({"inputs": ["a"], "max_tokens": 2, "response_format": format})
    };
    let before = thread_count(&app);
    let running = AtomicUsize::new(24);
    let (statuses, most_threads) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..24)
            .map(|number| {
                let (app, running, body) = (&app, &running, request(number));
                scope.spawn(move || {
                    let status = app.post("/generate", &body).status;
                    running.fetch_sub(1, Ordering::Relaxed);
                    status
                })
            })
            .collect();
        let most_threads = Cell::new(0);
        wait_until("the end of the requests", || {
            most_threads.set(most_threads.get().max(thread_count(&app)));
            running.load(Ordering::Relaxed) == 0
        });
        let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (statuses, most_threads.get())
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200));
    assert!(most_threads <= before + 10, "{before} threads became {most_threads}");
}
