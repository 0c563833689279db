//! Tests of OpenAI's files and fine-tuning jobs: they are our datasets and jobs, visible both ways.

use crate::api::generation::start_with_decoder;
use crate::api::request::parts;
use crate::api::server_process::{HttpResponse, ServerConfig, ServerProcess};
use serde_json::{Value, json};

fn send_file(app: &ServerProcess, purpose: &str, content: &[u8]) -> HttpResponse {
    let file = "content-disposition: form-data; name=\"file\"; filename=\"rows.jsonl\"";
    let text = "content-disposition: form-data; name=\"purpose\"";
    parts("/v1/files", &[(text, purpose.as_bytes()), (file, content)]).send(app)
}

fn upload(app: &ServerProcess, rows: &[Value], purpose: &str) -> Value {
    let content: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let answer = send_file(app, purpose, content.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn rows() -> Vec<Value> {
    (0..12).map(|index| json!({"prompt": format!("fruit {index}"), "completion": format!(" apple {index}")})).collect()
}

fn uuid_of(id: &Value, prefix: &str) -> String {
    uuid::Uuid::parse_str(id.as_str().unwrap().strip_prefix(prefix).unwrap()).unwrap().to_string()
}

#[test]
fn fine_tuning_jobs_and_training_jobs_are_the_same_rows() {
    let app = start_with_decoder("llama", &[]);
    let model = app.get("/base").json()["name"].clone();
    let file = upload(&app, &rows(), "fine-tune");
    let dataset = uuid_of(&file["id"], "file-");
    assert_eq!(app.get(&format!("/datasets/{dataset}")).json()["report"]["rows"], 12);
    let body = json!({"model": model, "training_file": file["id"], "suffix": "Fruit", "seed": 5, "metadata": {"a": "b"},
        "hyperparameters": {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}});
    let created = app.post("/v1/fine_tuning/jobs", &body);
    assert_eq!(created.status, 200, "{}", created.text());
    let id = uuid_of(&created.json()["id"], "ftjob-");
    let job = app.wait_for_job(&id);
    assert_eq!(
        (&job["status"], &job["name"], &job["metadata"]),
        (&json!("succeeded"), &json!("fruit"), &json!({"a": "b"}))
    );
    assert_eq!(
        (&job["hyperparameters"]["epochs"], &job["hyperparameters"]["learning_rate"]),
        (&json!(2), &json!(0.0005))
    );
    let view = app.get(&format!("/v1/fine_tuning/jobs/{}", created.json()["id"].as_str().unwrap())).json();
    let fine_tuned = view["fine_tuned_model"].as_str().unwrap();
    assert!(fine_tuned.starts_with("fruit@"), "{view:#}");
    let completion = app.post("/v1/completions", &json!({"model": fine_tuned, "prompt": "fruit 1", "max_tokens": 2}));
    assert_eq!(completion.status, 200, "{}", completion.text());

    let other = app.train_to_success(&json!({"examples": rows(), "hyperparameters": {"max_steps": 1}}));
    let page = app.get("/v1/fine_tuning/jobs?limit=1").json();
    assert_eq!(
        (uuid_of(&page["data"][0]["id"], "ftjob-"), &page["has_more"]),
        (other["id"].as_str().unwrap().to_string(), &json!(true))
    );
    let next = app.get(&format!("/v1/fine_tuning/jobs?limit=1&after={}", page["last_id"].as_str().unwrap())).json();
    assert_eq!((uuid_of(&next["data"][0]["id"], "ftjob-"), &next["has_more"]), (id, &json!(false)));
    let filtered = app.get("/v1/fine_tuning/jobs?metadata[a]=b").json();
    assert_eq!(filtered["data"].as_array().unwrap().len(), 1);
}

#[test]
fn wrong_files_and_jobs_are_refused_by_field() {
    let app = start_with_decoder("llama", &[]);
    let model = app.get("/base").json()["name"].clone();
    let file = upload(&app, &rows(), "fine-tune");
    let refused = send_file(&app, "batch", b"{}");
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("purpose")), "{}", refused.text());
    let refused = send_file(&app, "fine-tune", b"{");
    assert_eq!(refused.status, 400, "{}", refused.text());
    for (fields, param) in [
        (json!({"training_file": "file-1"}), "training_file"),
        (json!({"validation_file": "file-00000000000000000000000000000000"}), "validation_file"),
        (json!({"model": "none"}), "model"),
        (json!({"method": {"type": "dpo"}}), "training_file"),
        (json!({"method": {"type": "reinforcement"}}), "method.type"),
        (json!({"integrations": [{"type": "wandb"}]}), "integrations"),
        (json!({"hyperparameters": {"n_epochs": "many"}}), "hyperparameters.n_epochs"),
        (json!({"suffix": "ä"}), "suffix"),
    ] {
        let mut body = json!({"model": model, "training_file": file["id"]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let refused = app.post("/v1/fine_tuning/jobs", &body);
        assert_eq!(
            (refused.status, &refused.json()["error"]["param"]),
            (400, &json!(param)),
            "{fields}: {}",
            refused.text()
        );
    }
    assert_eq!(app.get("/v1/fine_tuning/jobs/ftjob-none").status, 404);
    assert_eq!(app.get("/v1/files/file-results-00000000000000000000000000000000").status, 404);
}

#[test]
fn conversations_train_a_classifier_on_an_encoder() {
    let app = ServerConfig::new().start();
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let conversation = |text: String, label: &str| json!({"messages": [message("system", "Classify."), message("user", &text), message("assistant", label)]});
    let rows: Vec<Value> = (0..12)
        .flat_map(|index| {
            [conversation(format!("red apple {index}"), "fruit"), conversation(format!("blue car {index}"), "vehicle")]
        })
        .collect();
    let file = upload(&app, &rows, "fine-tune");
    let report = app.get(&format!("/datasets/{}", uuid_of(&file["id"], "file-"))).json()["report"].clone();
    assert_eq!((&report["target"], &report["rows"]), (&json!("label"), &json!(24)), "{report:#}");
    let note =
        "`label` is the last message in \"messages\", and `text` the messages before it without those of the system";
    assert_eq!(report["mapping"], json!([note]), "{report:#}");
    let body = json!({"model": app.get("/base").json()["name"], "training_file": file["id"], "suffix": "topics"});
    let created = app.post("/v1/fine_tuning/jobs", &body).json();
    assert_eq!(app.wait_for_job(&uuid_of(&created["id"], "ftjob-"))["status"], "succeeded");
    let answer = app.post("/predict?adapter=topics", &json!({"inputs": ["red apple 3"]})).json();
    assert_eq!(answer["predictions"][0]["label"], "fruit", "{answer:#}");

    let unlabelled = json!({"messages": [message("assistant", "fruit"), message("user", "red apple")]});
    let refused = send_file(&app, "fine-tune", format!("{unlabelled}\n").as_bytes());
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("the last message has to be a text of the assistant"), "{}", refused.text());
}
