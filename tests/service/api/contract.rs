//! Tests of the API's contract: fields of jobs, references to adapters, predictions, documentation.

use crate::api::request::{bytes, get};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::fs;

fn short_job(name: &str, seed: u64) -> Value {
    small_job(30, json!({"name": name, "hyperparameters": {"epochs": 2, "seed": seed}}))
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn list(app: &ServerProcess, path: &str) -> Vec<Value> {
    let answer = app.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(keys(&answer.json()), ["data", "next"], "{path}");
    answer.json()["data"].as_array().unwrap().clone()
}

#[test]
fn job_has_every_documented_field() {
    let app = ServerConfig::new().start();
    let asked = app.post("/jobs", &short_job("questions", 1));
    let accepted = asked.json();
    assert_eq!(asked.status, 202);
    assert_eq!(asked.header("location"), Some(format!("/jobs/{}", accepted["id"].as_str().unwrap()).as_str()));
    let known = [
        "adapter",
        "adapter_id",
        "attempt",
        "created_at",
        "dataset",
        "dataset_id",
        "error",
        "finished_at",
        "from_adapter",
        "hyperparameters",
        "id",
        "labels",
        "metadata",
        "method",
        "metrics",
        "name",
        "next_attempt_at",
        "options",
        "priority",
        "progress",
        "queue_position",
        "requested_action",
        "started_at",
        "status",
        "task",
        "validation",
        "waiting_for",
        "worker",
    ];
    assert_eq!(keys(&accepted), known);

    let job = app.wait_for_job(accepted["id"].as_str().unwrap());
    assert_eq!(keys(&job), known);
    assert_eq!((&job["status"], &job["name"], &job["attempt"]), (&json!("succeeded"), &json!("questions"), &json!(1)));
    assert_eq!(job["task"], json!({"type": "sequence_classification", "pooling": "mean"}));
    assert_eq!(job["method"]["target_modules"], json!(["query", "value"]));
    assert_eq!((&job["hyperparameters"]["epochs"], &job["hyperparameters"]["batch_size"]), (&json!(2), &json!(32)));
    assert_eq!(job["labels"], json!(["arrival", "fee", "help"]));
    assert_eq!(job["dataset"]["report"]["examples"], 30);
    assert_eq!(
        (&job["error"], &job["requested_action"], &job["queue_position"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert!(["created_at", "started_at", "finished_at"].map(|time| job[time].is_string()).iter().all(|there| *there));
    assert_eq!(job["progress"]["step"], job["progress"]["total_steps"]);
    for metric in ["accuracy", "loss", "macro_f1"] {
        assert!(job["metrics"]["validation"][metric].is_number(), "{:#}", job["metrics"]);
    }
    assert_eq!(job["adapter"]["id"], job["adapter_id"]);

    let (succeeded, queued) = (list(&app, "/jobs?status=succeeded"), list(&app, "/jobs?status=queued"));
    assert_eq!((succeeded.len(), queued.len()), (1, 0));
    assert!(succeeded[0].as_object().unwrap().iter().all(|(field, value)| job[field] == *value));
}

#[test]
fn job_with_two_examples_succeeds() {
    let app = ServerConfig::new().start();
    let examples = json!([{"text": "when", "label": "a"}, {"text": "why", "label": "b"}]);
    let job = app.train_to_success(&json!({"examples": examples, "hyperparameters": {"max_steps": 2}}));
    assert_eq!(job["dataset"]["report"]["warning_counts"]["label_seen_once"], 2);
    let stopping = json!({"max_steps": 2, "early_stopping": {"patience": 1}});
    app.train_to_success(&json!({"examples": examples, "hyperparameters": stopping, "validation": {"fraction": 0.0}}));
}

#[test]
fn adapter_resolves_by_id_name_and_version() {
    let app = ServerConfig::new().start();
    let (first, second) =
        (app.train_to_success(&short_job("questions", 1)), app.train_to_success(&short_job("questions", 2)));
    let adapters = list(&app, "/adapters");
    assert_eq!((&adapters[0]["id"], &adapters[1]["id"]), (&second["adapter_id"], &first["adapter_id"]));
    let known = [
        "base",
        "base_verified",
        "bytes",
        "created_at",
        "id",
        "is_current",
        "job_id",
        "labels",
        "max_length",
        "method",
        "metrics",
        "name",
        "provenance",
        "task",
        "version",
    ];
    assert_eq!(keys(&adapters[0]), known);
    assert_eq!((&adapters[0]["job_id"], &adapters[0]["base_verified"]), (&second["id"], &json!(true)));

    assert_eq!((&adapters[0]["is_current"], &adapters[1]["is_current"]), (&json!(true), &json!(false)));
    let by = |reference: &str| app.get(&format!("/adapters/{reference}")).json()["id"].clone();
    let version = |adapter: &Value| adapter["version"].as_str().unwrap().to_string();
    let (newest, oldest) = (version(&adapters[0]), version(&adapters[1]));
    assert!(newest != oldest && newest.starts_with("sha256:") && newest.len() == 71, "{newest}");
    assert_eq!(by(second["adapter_id"].as_str().unwrap()), second["adapter_id"]);
    assert_eq!(by("questions"), second["adapter_id"]);
    assert_eq!(by(&format!("questions@{}", &oldest[7..15])), first["adapter_id"]);
    assert_eq!(by(&format!("questions@{oldest}")), first["adapter_id"]);

    let answered = |reference: &str| {
        let answer = app.post(&format!("/predict?adapter={reference}"), &json!({"inputs": ["why"]}));
        answer.json()["adapter"]["version"].clone()
    };
    assert_eq!(answered("questions"), newest);
    assert_eq!(answered(&format!("questions@{}", &oldest[7..23])), oldest);
    let activate = |version: &str| {
        let answer = app.post(&format!("/adapters/questions@{}/activate", &version[7..15]), &json!({}));
        (answer.status, answer.json()["is_current"].clone(), by("questions"), answered("questions"))
    };
    assert_eq!(activate(&oldest), (200, json!(true), first["adapter_id"].clone(), json!(oldest)));
    assert_eq!(activate(&newest), (200, json!(true), second["adapter_id"].clone(), json!(newest)));
    assert_eq!(app.delete("/adapters/questions").status, 204);
    assert_eq!((by("questions"), answered("questions")), (first["adapter_id"].clone(), json!(oldest)));
    assert_eq!(app.delete(&format!("/adapters/{}", first["adapter_id"].as_str().unwrap())).status, 204);
    assert_eq!(app.get("/adapters/questions").status, 404);
    assert_eq!(app.get(&format!("/jobs/{}", first["id"].as_str().unwrap())).json()["adapter"], Value::Null);
}

#[test]
fn exported_adapter_reimports_with_the_same_version() {
    let app = ServerConfig::new().start();
    app.train_to_success(&short_job("questions", 1));
    let before = app.get("/adapters/questions").json();
    let zip = app.get("/adapters/questions/download");
    assert_eq!((zip.status, zip.header("content-type")), (200, Some("application/zip")));
    let named = zip.header("content-disposition").unwrap();
    assert!(named.contains("questions-") && named.contains(".zip"), "{named}");
    let brought = bytes("/adapters?name=back", "application/zip", zip.body.clone()).send(&app);
    assert_eq!(brought.status, 201, "{}", brought.text());
    let back = brought.json();
    assert_eq!(brought.header("location"), Some(format!("/adapters/{}", back["id"].as_str().unwrap()).as_str()));
    assert_eq!((&back["version"], &back["name"]), (&before["version"], &json!("back")));
    assert_eq!((&back["job_id"], &back["metrics"]), (&Value::Null, &before["metrics"]));
    let again = app.post_file("/adapters", ("options", &json!({})), ("adapter", "a.zip", &zip.body));
    assert_eq!((again.status, &again.json()["name"]), (201, &Value::Null));
    // Three rows share one folder, which is deleted with the last row.
    let folders = || fs::read_dir(app.setup.data_dir().join("adapters")).unwrap().count();
    assert_eq!((list(&app, "/adapters").len(), folders()), (3, 1));
    assert_eq!(app.delete("/adapters/questions").status, 204);
    assert_eq!(app.post("/predict?adapter=back", &json!({"inputs": ["why"]})).status, 200);
}

#[test]
fn prediction_has_label_top_k_and_optional_logits() {
    let app = ServerConfig::new().start();
    app.train_to_success(&short_job("questions", 1));
    let ask = |body: Value| {
        let answer = app.post("/predict?adapter=questions", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let inputs = json!(["why was I charged", {"text": "why was I charged"}, {"text": "when", "text_pair": "will it"}]);
    let plain = ask(json!({"inputs": inputs}));
    assert_eq!(
        (keys(&plain), keys(&plain["adapter"])),
        (vec!["adapter", "predictions"], vec!["id", "name", "version"])
    );
    let predictions = plain["predictions"].as_array().unwrap();
    assert_eq!((predictions.len(), keys(&predictions[0])), (3, vec!["label", "score", "top"]));
    assert_eq!(predictions[0], predictions[1], "a text is an object with a text");
    assert_eq!(predictions[0]["top"].as_array().unwrap().len(), 1);
    assert_ne!(predictions[2], ask(json!({"inputs": ["when"]}))["predictions"][0], "the second text counts");

    let full = ask(json!({"inputs": inputs, "top_k": 100, "logits": true}))["predictions"][0].clone();
    let scores: Vec<f64> = full["top"].as_array().unwrap().iter().map(|one| one["score"].as_f64().unwrap()).collect();
    assert_eq!((scores.len(), full["logits"].as_array().unwrap().len()), (3, 3), "no more than there are labels");
    assert!(scores.is_sorted_by(|one, next| one >= next) && (scores.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    assert_eq!((&full["label"], &full["score"]), (&full["top"][0]["label"], &full["top"][0]["score"]));
}

#[test]
fn base_model_returns_normalized_embeddings() {
    let model = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(fixture("tiny-bert").join(name), model.path().join(name)).unwrap();
    }
    let modules =
        json!([{"type": "sentence_transformers.models.Pooling"}, {"type": "sentence_transformers.models.Normalize"}]);
    fs::write(model.path().join("modules.json"), modules.to_string()).unwrap();
    let length = |app: &ServerProcess| {
        let answer = app.post("/predict", &json!({"inputs": ["where is my card", "why"]})).json();
        assert_eq!(answer["adapter"], Value::Null);
        let row: Vec<f64> = serde_json::from_value(answer["predictions"][0]["embedding"].clone()).unwrap();
        let base = app.get("/base").json();
        assert_eq!((row.len() as u64, &base["model_type"]), (base["hidden_size"].as_u64().unwrap(), &json!("bert")));
        (row.iter().map(|value| value * value).sum::<f64>().sqrt(), base["normalized_embedding"].clone())
    };
    let (scaled, says) = length(&ServerConfig::new().with_base_model(model.path().to_path_buf()).start());
    assert!((scaled - 1.0).abs() < 1e-5 && says == true, "{scaled} {says}");
    let (free, says) = length(&ServerConfig::new().start());
    assert!((free - 1.0).abs() > 1e-2 && says == false, "{free} {says}");
}

#[test]
fn health_metrics_and_docs_need_no_network() {
    let app = ServerConfig::new().start();
    assert_eq!(app.get("/health/live").json(), json!({"status": "live"}));
    assert_eq!(app.get("/health/ready").json(), json!({"status": "ready"}));
    let series = |name: &str| {
        let answer = app.get("/metrics");
        assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
        let found = answer.text().lines().find(|line| line.starts_with(name)).map(str::to_string);
        found.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    for name in [
        "espalier_http_requests_in_flight",
        "espalier_adapter_cache_entries",
        "espalier_queued_inputs",
        "espalier_build_info",
    ] {
        assert!(series(name).is_some(), "{name}");
    }
    let asked = "espalier_http_requests_total{method=\"POST\",route=\"/predict\",status=\"200\"}";
    assert_eq!((series(asked), series("espalier_serving_batched_inputs_total")), (None, Some(0.0)));
    app.post("/predict", &json!({"inputs": ["a", "b"]}));
    assert_eq!((series(asked), series("espalier_serving_batched_inputs_total")), (Some(1.0), Some(2.0)));
    app.train_to_success(&short_job("questions", 1));
    // The numbers of jobs are read every few seconds.
    crate::api::kill_points::wait_until("the finished job", || {
        series("espalier_jobs{status=\"succeeded\"}") == Some(1.0)
    });

    let document = app.get("/openapi.yaml");
    assert_eq!(document.header("content-type"), Some("application/yaml"));
    assert!(document.text().starts_with("openapi: 3.1"), "{}", &document.text()[..80]);
    // The page loads only assets of this server.
    let page = get("/docs").send(&app).text();
    assert!(!page.contains("://") && !page.contains("src=\"//"), "{page}");
    let files: Vec<&str> =
        page.split(['"', '\'']).filter(|word| word.ends_with(".js") || word.ends_with(".css")).collect();
    assert!(files.len() >= 3, "{page}");
    for file in files {
        assert_eq!(app.get(&format!("/docs/{}", file.trim_start_matches("./"))).status, 200, "{file}");
    }
    assert!(app.get("/docs/swagger-initializer.js").text().contains("../openapi.yaml"));
}

#[test]
fn request_id_is_kept_and_keys_file_authenticates() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "# of the team\nthe-key-of-the-first-user\n\nthe-key-of-the-second-user # until May\n").unwrap();
    let app = ServerConfig::new().with_environment("ESPALIER_API_KEYS_FILE", file.to_str().unwrap()).start();
    let ask = |key: &str| {
        get("/base").with_header("authorization", &format!("Bearer {key}")).with_header("x-request-id", "trace-1.a")
    };
    for (key, status) in [("the-key-of-the-first-user", 200), ("the-key-of-the-second-user", 200), ("until May", 401)] {
        let answer = ask(key).send(&app);
        assert_eq!((answer.status, answer.header("x-request-id")), (status, Some("trace-1.a")), "{key}");
    }
    let own = get("/health/live").send(&app);
    assert!(own.header("x-request-id").is_some_and(|id| id.len() == 36));
}
