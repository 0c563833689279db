//! Texts of users and API keys stay out of the log, the metrics, the traces and the database.

use crate::api::otlp_collector::Collector;
use crate::api::request::{Request, bytes, delete, form, get, post};
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess};
use crate::support::database::Database;
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Row};
use std::fs;
use tokio::runtime::Runtime;

/// A word of every text.
const TEXT: &str = "zwiebelkuchen";
/// A part of every key and token.
const KEY: &str = "quittengelee";

fn key() -> String {
    format!("key-{KEY}-of-the-team")
}

fn send(app: &ServerProcess, request: Request) -> HttpResponse {
    request.with_header("authorization", &format!("Bearer {}", key())).send(app)
}

fn rows(count: usize) -> Vec<Value> {
    let row = |index: usize| {
        let (word, label) = [("card", "lost"), ("refund", "fee")][index % 2];
        json!({"text": format!("{TEXT} {word} number {index}"), "label": label})
    };
    (0..count).map(row).collect()
}

/// Trains a classifier on a file and a language model on rows in the request, with bad rows too.
fn train(app: &ServerProcess) {
    let lines = rows(40).iter().map(|row| format!("{row}\n")).collect::<String>();
    let bad = format!("{lines}{{\"text\": \"{TEXT}\", \"label\": 7}}\n{{\"text\": \"{TEXT}\"\n{TEXT}\n");
    let refused = send(app, form("/datasets", ("options", &json!({})), ("dataset", "rows.jsonl", bad.as_bytes())));
    assert_eq!(refused.status, 422, "{}", refused.text());
    let options = json!({"on_bad_rows": "skip"});
    let dataset = send(app, form("/datasets", ("options", &options), ("dataset", "rows.jsonl", bad.as_bytes())));
    assert_eq!(dataset.status, 201, "{}", dataset.text());
    let fast = json!({"epochs": 1});
    let conversation = json!({"prompt": format!("{TEXT} asks"), "completion": format!(" {TEXT} answers")});
    for (name, job) in [
        ("classes", json!({"dataset_id": dataset.json()["id"], "hyperparameters": fast})),
        ("text", json!({"examples": vec![conversation; 12], "hyperparameters": fast})),
    ] {
        let mut job = job;
        job["name"] = json!(name);
        job["method"] = json!({"type": "lora", "target_modules": "all-linear"});
        let answer = send(app, post("/jobs", &job));
        assert_eq!(answer.status, 202, "{}", answer.text());
        let path = format!("/jobs/{}", answer.json()["id"].as_str().unwrap());
        let events = send(app, get(format!("{path}/events")).with_header("accept", "text/event-stream"));
        assert_eq!(events.status, 200);
        assert_eq!(send(app, get(path)).json()["status"], "succeeded");
    }
}

/// Sends texts by every way in, and texts and keys that are refused. Returns the statuses.
fn use_texts(app: &ServerProcess) -> Vec<u16> {
    let texts = json!({"inputs": [format!("{TEXT} lost")]});
    let messages = json!([{"role": "user", "content": format!("{TEXT}?")}]);
    let chat = |model: &str| json!({"model": model, "messages": messages, "max_tokens": 4, "stop": [TEXT]});
    let unknown_field = json!({"model": "text", "messages": messages, "max_tokens": 4, TEXT: TEXT});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": TEXT}}});
    let formatted = json!({"model": "text", "messages": messages, "response_format": schema});
    let wrong_key = get("/jobs").with_header("authorization", &format!("Bearer wrong-{KEY}")).send(app);
    let azure = get("/jobs").with_header("api-key", &format!("wrong-{KEY}")).send(app);
    let cookie = get("/jobs").with_header("cookie", &format!("espalier_session={KEY}")).send(app);
    let requests = vec![
        post("/predict?adapter=classes", &texts),
        post("/predict", &texts),
        post("/predict?adapter=classes", &json!({"inputs": [TEXT, ""]})),
        post("/predict?adapter=text", &texts),
        post("/predict?adapter=classes", &json!({"inputs": TEXT, TEXT: TEXT})),
        bytes("/predict", "application/json", format!("{{\"inputs\": [\"{TEXT}\"")),
        bytes("/predict", TEXT, TEXT),
        post("/generate?adapter=text", &json!({"inputs": [format!("{TEXT} asks")], "max_tokens": 4, "stop": [TEXT]})),
        post("/generate", &json!({"inputs": [TEXT.repeat(500)], "max_tokens": 4})),
        post("/v1/chat/completions", &chat("text")),
        post("/v1/chat/completions", &chat(TEXT)),
        post("/v1/chat/completions", &unknown_field),
        post("/v1/chat/completions", &formatted),
        post(
            "/v1/completions",
            &json!({"model": "text", "prompt": TEXT, "max_tokens": 3, "echo": true, "logprobs": 1}),
        ),
        post("/v1/responses", &json!({"model": "text", "input": TEXT, "max_output_tokens": 3})),
        post("/v1/embeddings", &json!({"model": "tiny", "input": TEXT})),
        post("/tokenize", &json!({"prompt": TEXT})),
        post("/jobs", &json!({"examples": [{"text": TEXT, "label": 1}, {TEXT: TEXT}]})),
        post("/jobs", &json!({"examples": rows(4), "name": format!("{TEXT} {TEXT}/")})),
        get(format!("/jobs?after={TEXT}")),
        get(format!("/{TEXT}/{TEXT}")),
        // Names are no texts: the audit log and the log of a failed download have them.
        delete("/adapters/nobody"),
        post("/adapters", &json!({"source": "hub:owner/name"})),
        form("/adapters", ("options", &json!({})), ("adapter", "a.zip", TEXT.as_bytes())),
    ];
    let refused = [wrong_key.status, azure.status, cookie.status];
    assert_eq!(refused, [401; 3]);
    requests.into_iter().map(|request| send(app, request).status).collect()
}

fn contains(haystack: &[u8], word: &str) -> bool {
    haystack.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Every place where the words occur, with what is around them.
fn occurrences(place: &str, content: &[u8]) -> Vec<String> {
    let found = |word: &str| {
        let position = content.windows(word.len()).position(|window| window == word.as_bytes())?;
        let around = &content[position.saturating_sub(300)..content.len().min(position + 100)];
        Some(format!("{place} has {word}: {}", String::from_utf8_lossy(around)))
    };
    [TEXT, KEY].into_iter().filter_map(found).collect()
}

/// All rows of all tables as text.
async fn dump(url: &str) -> String {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let tables = "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'";
    let mut text = String::new();
    for row in sqlx::query(tables).fetch_all(&mut connection).await.unwrap() {
        let table: String = row.get(0);
        let rows = format!("select coalesce(string_agg(t::text, chr(10)), '') from \"{table}\" t");
        let rows: String = sqlx::query(AssertSqlSafe(rows)).fetch_one(&mut connection).await.unwrap().get(0);
        text.push_str(&format!("{table}\n{rows}\n"));
    }
    text
}

/// Uses a server with the most detailed log and all traces, and returns where texts or keys are found. `dump` reads the database.
fn leaks(setup: &ServerConfig, dump: impl FnOnce() -> Vec<u8>) -> Vec<String> {
    let collector = Collector::start();
    let setup = setup
        .clone()
        .with_base_model(fixture("decoders").join("llama"))
        .with_arguments(&["--log-level", "trace", "--otlp-endpoint", &collector.endpoint])
        .with_environment("HF_ENDPOINT", "http://127.0.0.1:1")
        .with_environment("HF_TOKEN", &format!("hf_{KEY}"))
        .with_environment("ESPALIER_API_KEYS", &key());
    let mut app = setup.start();
    train(&app);
    let statuses = use_texts(&app);
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 8, "{statuses:?}");
    assert!(statuses.iter().all(|status| *status < 500 || *status == 503), "{statuses:?}");
    let metrics = send(&app, get("/metrics"));
    assert_eq!(metrics.status, 200);
    let (status, _) = app.terminate();
    assert!(status.success(), "{status}");
    let (log, database) = (app.log().join("\n"), dump());
    assert!(log.contains("\"DEBUG\"") && log.contains("adapter published"), "the log is detailed");
    assert!(contains(&database, "classes"), "the database is read");
    let spans = collector.spans();
    assert!(spans.len() > 50 && spans.iter().any(|span| span.name() == "POST /v1/chat/completions"));
    let places = [
        ("the log", log.into_bytes()),
        ("metrics", metrics.body),
        ("traces", collector.bytes()),
        ("database", database),
    ];
    places.into_iter().flat_map(|(place, content)| occurrences(place, &content)).collect()
}

#[test]
fn no_text_and_no_key_leaves_a_server_on_sqlite() {
    let setup = ServerConfig::new();
    let data = setup.data_dir();
    let read = || {
        let files = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap());
        files.collect::<Vec<_>>().concat()
    };
    let found = leaks(&setup, read);
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[test]
fn no_text_and_no_key_leaves_a_server_on_postgres() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(Database::postgres());
    let setup = ServerConfig::new().with_database(database.url().to_string());
    let found = leaks(&setup, || runtime.block_on(dump(database.url())).into_bytes());
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    runtime.block_on(database.drop_database());
}
