//! `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, and the metrics that a gateway reads.

use crate::api::generation::train_adapter;
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess, TIMEOUT};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use zip::ZipArchive;

const LOAD: &str = "/v1/load_lora_adapter";
const UNLOAD: &str = "/v1/unload_lora_adapter";
const KEY: &str = "a-key-of-sufficient-length";

fn decoder() -> ServerConfig {
    ServerConfig::new().with_base_model(fixture("decoders/llama"))
}

/// Trains a small adapter and unpacks its download to a folder.
fn write_adapter(folder: &Path) {
    let app = decoder().start();
    let rows: Vec<Value> = (0..12).map(|_| json!({"prompt": "fruit red", "completion": " apple"})).collect();
    train_adapter(&app, "fruit", &rows, json!({"hyperparameters": {"max_steps": 3}}));
    let zip = app.get("/adapters/fruit/download").body;
    ZipArchive::new(Cursor::new(zip)).unwrap().extract(folder).unwrap();
}

fn load(app: &ServerProcess, request: &Value) -> HttpResponse {
    app.post(LOAD, request)
}

fn assert_text(answer: &HttpResponse, text: &str) {
    assert_eq!((answer.status, answer.text()), (200, text.to_string()));
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
}

fn complete(app: &ServerProcess, model: &str) -> HttpResponse {
    app.post("/v1/completions", &json!({"model": model, "prompt": "fruit red", "max_tokens": 2}))
}

#[test]
fn adapters_are_loaded_and_unloaded_by_name() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("imports");
    write_adapter(&root.join("fruit"));
    fs::create_dir(root.join("empty")).unwrap();
    let folder = root.display().to_string();
    let app = decoder().with_arguments(&["--adapter-import-folder", &folder]).start();
    let named = |name: &str| json!({"lora_name": name, "lora_path": format!("{folder}/fruit")});
    assert_text(&load(&app, &named("sql-lora")), "Success: LoRA adapter 'sql-lora' added successfully.");
    assert_eq!(complete(&app, "sql-lora").status, 200);
    let models = app.get("/v1/models").json();
    assert!(models["data"].as_array().unwrap().iter().any(|model| model["id"] == "sql-lora"), "{models:#}");
    let mut again = named("sql-lora");
    check_openai_cases(
        &app,
        vec![
            (LOAD, again.clone(), 400, "The lora adapter 'sql-lora' has already been loaded. If you want to load"),
            (LOAD, json!({"lora_name": "a"}), 400, "Both 'lora_name' and 'lora_path' must be provided."),
            (LOAD, json!({"lora_name": "", "lora_path": "fruit"}), 400, "Both 'lora_name' and 'lora_path'"),
            (LOAD, json!({"lora_name": "a", "lora_path": "nothing"}), 404, "No adapter found for nothing"),
            (LOAD, json!({"lora_name": "a", "lora_path": "/etc"}), 404, "No adapter found for /etc"),
            (LOAD, json!({"lora_name": "a", "lora_path": "../"}), 404, "No adapter found for ../"),
            (LOAD, json!({"lora_name": "a", "lora_path": "empty"}), 400, "holds no adapter_config.json"),
            (LOAD, json!({"lora_name": "Two Words", "lora_path": "fruit"}), 400, "is not a name"),
            (LOAD, json!({"lora_name": "llama", "lora_path": "fruit"}), 400, "is the name of the base model"),
            (UNLOAD, json!({}), 400, "'lora_name' needs to be provided to unload a LoRA adapter."),
            (UNLOAD, json!({"lora_name": "nothing"}), 404, "The lora adapter 'nothing' cannot be found."),
        ],
    );
    again["load_inplace"] = json!(true);
    assert_text(&load(&app, &again), "Success: LoRA adapter 'sql-lora' added successfully.");
    let unloaded = app.post(UNLOAD, &json!({"lora_name": "sql-lora", "lora_int_id": 1}));
    assert_text(&unloaded, "Success: LoRA adapter 'sql-lora' removed successfully.");
    assert_eq!(complete(&app, "sql-lora").status, 404);

    // An adapter of another origin is not deleted.
    let imported = app.post("/adapters", &json!({"source": "path:fruit", "name": "kept"}));
    assert_eq!(imported.status, 201, "{}", imported.text());
    check_openai_cases(&app, vec![(UNLOAD, json!({"lora_name": "kept"}), 400, "DELETE /adapters/")]);
    assert_eq!(complete(&app, "kept").status, 200);
}

/// Adapters with embeddings and heads of their own, saved by PEFT on the same base.
#[test]
fn heads_of_adapters_are_computed_apart_in_one_batch() {
    let app = decoder().start();
    let names = ["llama-embeddings-and-head", "llama-lora-of-embeddings-and-head", "llama-trainable-tokens"];
    for name in names {
        let zip = fs::read(fixture("peft-published").join(name).join("adapter.zip")).unwrap();
        let answer = app.post_bytes(&format!("/adapters?base=llama&name={name}"), "application/zip", &zip);
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert!(answer.json()["provenance"]["vocabulary"]["embeddings"].is_object(), "{}", answer.text());
    }
    let generate = &|model: &str| {
        let body = json!({"model": model, "prompt": "Where is my card?", "max_tokens": 24, "temperature": 0,
            "logit_bias": {"0": -100.0, "3": -100.0}});
        let answer = app.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["choices"][0]["text"].clone()
    };
    let models = [names[0], "llama", names[1], names[2]];
    let alone = models.map(generate);
    for other in 1..models.len() {
        assert_ne!(alone[0], alone[other], "{}", models[other]);
    }
    for _ in 0..5 {
        let together = std::thread::scope(|scope| {
            models.map(|model| scope.spawn(move || generate(model))).map(|thread| thread.join().unwrap())
        });
        assert_eq!(together, alone);
    }
    let job = json!({"examples": [{"prompt": "a", "completion": "b"}], "from_adapter": names[0]});
    let refused = app.post("/jobs", &job);
    assert_eq!((refused.status, refused.json()["code"].clone()), (422, json!("adapter_not_trainable")));
}

#[test]
fn loading_needs_a_key_and_the_folder() {
    let app = decoder().with_arguments(&["--api-keys", KEY]).start();
    let body = json!({"lora_name": "a", "lora_path": "a"});
    assert_eq!(load(&app, &body).status, 401);
    let request = app.agent().post(app.url(LOAD)).header("authorization", format!("Bearer {KEY}"));
    let answer = HttpResponse::from_result(request.content_type("application/json").send(body.to_string()));
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("--adapter-import-folder"));
}

fn check_openai_cases(app: &ServerProcess, cases: Vec<(&str, Value, u16, &str)>) {
    for (path, body, status, words) in cases {
        let answer = app.post(path, &body);
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_string();
        assert_eq!(answer.status, status, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message} should say {words}");
    }
}

/// Value and labels of a metric without other labels.
fn metric(app: &ServerProcess, name: &str) -> (String, f64) {
    let text = app.get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    let (series, value) = line.rsplit_once(' ').unwrap();
    (series.to_string(), value.parse().unwrap())
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < TIMEOUT, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn gateway_metrics_follow_the_requests() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("imports");
    write_adapter(&root.join("fruit"));
    let folder = root.display().to_string();
    let arguments = ["--adapter-import-folder", &folder, "--max-running-sequences", "1"];
    let app = decoder().with_arguments(&arguments).start();
    for name in ["one", "two"] {
        assert_eq!(load(&app, &json!({"lora_name": name, "lora_path": "fruit"})).status, 200);
    }
    let info = metric(&app, "espalier_kv_cache_info").0;
    assert!(info.contains("block_size=\"32\"") && info.contains("num_gpu_blocks=\""), "{info}");
    assert_eq!(metric(&app, "espalier_requests_running").1, 0.0);
    assert_eq!(metric(&app, "espalier_kv_cache_usage_ratio").1, 0.0);

    let lora = || metric(&app, "espalier_lora_requests_info");
    let (is_seen, app_ref) = (AtomicBool::new(false), &app);
    let generate = &|model: &'static str| {
        let body =
            json!({"model": model, "prompt": "fruit", "max_tokens": 100, "logit_bias": {"0": -100.0, "3": -100.0}});
        while !is_seen.load(Ordering::Relaxed) {
            assert_eq!(app_ref.post("/v1/completions", &body).status, 200);
        }
    };
    std::thread::scope(|scope| {
        for model in ["one", "two"] {
            scope.spawn(move || generate(model));
        }
        let shows = |running: &str, waiting: &str| {
            lora().0.contains(&format!("running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\""))
        };
        wait_until("an adapter runs and the other waits", || shows("one", "two"));
        wait_until("the other runs", || shows("two", "one"));
        wait_until("a request runs", || metric(&app, "espalier_requests_running").1 == 1.0);
        wait_until("a request waits", || metric(&app, "espalier_requests_waiting").1 == 1.0);
        wait_until("blocks are in use", || metric(&app, "espalier_kv_cache_usage_ratio").1 > 0.0);
        is_seen.store(true, Ordering::Relaxed);
    });
    wait_until("all requests are done", || metric(&app, "espalier_requests_running").1 == 0.0);
    let (series, updated_at) = lora();
    assert!(series.contains("max_lora=\"1\",running_lora_adapters=\"\",waiting_lora_adapters=\"\""), "{series}");
    assert!(updated_at > 1.7e9, "{updated_at}");
    assert_eq!(metric(&app, "espalier_kv_cache_usage_ratio").1, 0.0);
}
