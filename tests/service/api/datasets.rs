//! Tests of dataset uploads: validation reports, skipped rows, formats and storage.

use crate::api::error_cases::{assert_no_errors_logged, server_state};
use crate::api::request::{bytes, form};
use crate::api::server_process::{ServerConfig, ServerProcess};
use serde_json::{Value, json};
use std::fmt::Write;

/// Sixty valid rows with five invalid rows between them.
fn csv_with_bad_rows() -> String {
    let kinds = [("arrival", "when will it arrive"), ("fee", "why was I charged"), ("help", "how can I change it")];
    let mut rows = "utterance,intent\n".to_string();
    for row in 0..60 {
        let (label, text) = kinds[row % 3];
        writeln!(rows, "{text} number {row},{label}").unwrap();
    }
    rows + ",fee\nno label\nwhy,\n\"open,fee\nwhat \0 is it,fee\n when will it arrive number 0,arrival\n"
}

fn upload(app: &ServerProcess, options: &Value) -> crate::api::server_process::HttpResponse {
    app.post_file("/datasets", ("options", options), ("dataset", "rows.csv", csv_with_bad_rows().as_bytes()))
}

#[test]
fn invalid_rows_are_skipped_and_counted() {
    let app = ServerConfig::new().start();
    let columns = json!({"text": "utterance", "label": "intent"});
    let refused = upload(&app, &json!({"columns": columns}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("invalid_dataset")));
    let lines: Vec<u64> =
        refused.json()["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [62, 63, 64, 65, 66], "lines are the file's, the header being 1");
    assert!(refused.json()["detail"].as_str().unwrap().contains("5 errors"), "{}", refused.text());
    assert!(refused.json()["detail"].as_str().unwrap().contains("\"on_bad_rows\": \"skip\""), "{}", refused.text());

    let skip = json!({"columns": columns, "on_bad_rows": "skip"});
    let kept = upload(&app, &skip);
    assert_eq!(kept.status, 201, "{}", kept.text());
    let report = &kept.json()["report"];
    assert_eq!((&report["rows"], &report["examples"], &report["error_count"]), (&json!(66), &json!(61), &json!(0)));
    let counts = json!({"broken_quote": 1, "duplicate": 1, "empty_label": 1, "empty_text": 1, "field_count": 1,
        "nul_character": 1, "white_space": 1});
    assert_eq!(report["warning_counts"], counts);
    let warned: Vec<&Value> = report["warnings"].as_array().unwrap().iter().map(|warning| &warning["line"]).collect();
    assert_eq!(warned, [62, 63, 64, 65, 66, 67, 67]);
    assert_eq!(report["labels"][0], json!({"label": "arrival", "count": 21}));
    assert!(report["lengths"]["median"].as_u64().unwrap() > 2, "{report:#}");

    let few = json!({"max_steps": 2});
    let stored = app.train_to_success(&json!({"dataset_id": kept.json()["id"], "hyperparameters": few}));
    let mut job = skip.clone();
    job["hyperparameters"] = few;
    let sent = app.post_file("/jobs", ("job", &job), ("dataset", "rows.csv", csv_with_bad_rows().as_bytes()));
    let sent = app.wait_for_job(sent.json()["id"].as_str().unwrap());
    assert_eq!((&sent["status"], &sent["dataset_id"]), (&json!("succeeded"), &kept.json()["id"]));
    assert_eq!(sent["adapter"]["version"], stored["adapter"]["version"], "whichever way the rows came");
}

#[test]
fn invalid_inline_examples_are_skipped() {
    let app = ServerConfig::new().start();
    let examples =
        json!([{"text": "when", "label": "a"}, {"text": "", "label": "a"}, {"text": "why", "label": "b"}, 7]);
    let job = json!({"examples": examples, "on_bad_rows": "skip", "hyperparameters": {"max_steps": 1}});
    let counts = app.train_to_success(&job)["dataset"]["report"]["warning_counts"].clone();
    assert_eq!(counts, json!({"empty_text": 1, "label_seen_once": 2, "unreadable_record": 1}));
}

#[test]
fn validate_only_reports_all_errors_and_stores_nothing() {
    let app = ServerConfig::new().start();
    let before = server_state(&app);
    let job = json!({"columns": {"text": "utterance", "label": "intent"}, "on_bad_rows": "skip"});
    let path = "/jobs?validate_only=true";
    let answer = form(path, ("job", &job), ("dataset", "rows.csv", csv_with_bad_rows().as_bytes())).send(&app);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["report"]["examples"], &answer["options"]["format"]), (&json!(61), &json!("csv")));
    assert_eq!(answer["spec"]["labels"], json!(["arrival", "fee", "help"]));
    assert!(answer["spec"]["hyperparameters"]["epochs"].is_number());
    let unmapped = json!({"columns": {"text": "phrase"}});
    let refused = form(path, ("job", &unmapped), ("dataset", "rows.csv", csv_with_bad_rows().as_bytes())).send(&app);
    assert_eq!((refused.status, &refused.json()["errors"][0]["line"]), (422, &json!(1)));
    assert_eq!(server_state(&app), before);
    assert_no_errors_logged(&app);
}

#[test]
fn every_format_gives_the_same_rows() {
    let app = ServerConfig::new().start();
    let bodies = [
        ("text/csv", "\u{feff}text,label\r\n\"a, \"\"b\"\"\",x\r\nc,y\r\n"),
        ("text/tab-separated-values", "text\tlabel\na, \"b\"\tx\nc\ty\n"),
        (
            "application/x-ndjson",
            "\u{feff}{\"text\": \"a, \\\"b\\\"\", \"label\": \"x\"}\n\n{\"label\": \"y\", \"text\": \"c\"}",
        ),
    ];
    let formats: Vec<Value> = bodies
        .into_iter()
        .map(|(content_type, body)| {
            let answer = bytes("/datasets", content_type, body).send(&app);
            assert_eq!(answer.status, 201, "{content_type}: {}", answer.text());
            let answer = answer.json();
            assert_eq!((&answer["report"]["examples"], &answer["bytes"]), (&json!(2), &json!(body.len())));
            answer["options"]["format"].clone()
        })
        .collect();
    assert_eq!(formats, ["csv", "tsv", "jsonl"]);
}

#[test]
fn file_is_stored_once_per_options_and_removed_with_the_last() {
    let app = ServerConfig::new().start();
    let body = "text,label,other\na,x,m\nb,y,n\n";
    let plain = bytes("/datasets?file_name=rows.csv", "text/csv", body).send(&app);
    let named = bytes("/datasets?file_name=../other.csv", "text/csv", body).send(&app);
    assert_eq!((plain.status, named.status), (201, 200));
    assert_eq!(plain.json(), named.json(), "the same file with another name is the same dataset");
    let other = json!({"columns": {"label": "other"}});
    let other = app.post_file("/datasets", ("options", &other), ("dataset", "rows.csv", body.as_bytes()));
    assert_eq!(other.status, 201);

    let id = |answer: &crate::api::server_process::HttpResponse| answer.json()["id"].as_str().unwrap().to_string();
    assert_eq!(other.header("location"), Some(format!("/datasets/{}", id(&other)).as_str()));
    let listed = app.get("/datasets").json()["data"].clone();
    assert_eq!(listed, json!([other.json(), plain.json()]), "the newest first");
    assert_eq!(app.get(&format!("/datasets/{}", id(&plain))).json(), plain.json());
    let file = app.setup.data_dir().join("datasets").join(plain.json()["hash"].as_str().unwrap());
    assert_eq!(app.delete(&format!("/datasets/{}", id(&plain))).status, 204);
    assert!(file.exists(), "the other dataset needs it");
    assert_eq!(app.delete(&format!("/datasets/{}", id(&plain))).status, 404);
    assert_eq!(app.get("/datasets").json()["data"].as_array().unwrap().len(), 1);
}
