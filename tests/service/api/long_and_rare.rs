//! Tests of texts that are longer than `max_length`, of rare labels with their thresholds, and of rows that both datasets have.

use crate::api::server_process::{ServerConfig, ServerProcess};
use serde_json::{Value, json};

/// Rows of which every twenty-fifth is a refund.
fn rows(count: usize) -> Vec<Value> {
    let row = |index: usize| match index % 25 {
        0 => json!({"text": format!("refund the fee of order {index}"), "label": "refund"}),
        _ => json!({"text": format!("when will card number {index} arrive"), "label": "other"}),
    };
    (0..count).map(row).collect()
}

fn validate(app: &ServerProcess, job: &Value) -> Value {
    let answer = app.post("/jobs?validate_only=true", job);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn warnings(report: &Value, code: &str) -> Vec<Value> {
    let warnings = report["warnings"].as_array().unwrap().iter();
    warnings.filter(|warning| warning["code"] == code).cloned().collect()
}

#[test]
fn long_texts_give_one_finding_and_predictions_say_that_they_were_cut() {
    let app = ServerConfig::new().start();
    let long_text = "when will it arrive ".repeat(40);
    let mut examples = rows(50);
    examples.extend([json!({"text": long_text, "label": "other"}), json!({"text": long_text, "label": "refund"})]);
    let job = json!({"name": "questions", "examples": examples, "hyperparameters": {"max_steps": 2}});
    let checked = validate(&app, &job);
    assert_eq!(checked["spec"]["hyperparameters"]["max_length"], 128, "the base reads no more");
    let found = warnings(&checked["report"], "truncated");
    assert_eq!((found.len(), &found[0]["line"]), (1, &Value::Null), "{found:?}");
    assert!(found[0]["message"].as_str().unwrap().starts_with("2 of 52 rows are longer"), "{found:?}");
    let mut short = job.clone();
    short["hyperparameters"]["max_length"] = json!(16);
    let message = warnings(&validate(&app, &short)["report"], "truncated")[0]["message"].to_string();
    assert!(message.contains("`max_length` of 16 tokens") && message.contains("`max_length` 128"), "{message}");

    let job = app.train_to_success(&job);
    let adapter = app.get(&format!("/adapters/{}", job["adapter"]["id"].as_str().unwrap())).json();
    assert_eq!(adapter["max_length"], 128, "{adapter:#}");
    let predict = |body: Value| app.post("/predict?adapter=questions", &body);
    let predictions = predict(json!({"inputs": ["why?", long_text]})).json()["predictions"].clone();
    assert_eq!((predictions[0].get("truncated"), &predictions[1]["truncated"]), (None, &json!(true)));
    let embeddings = app.post("/predict", &json!({"inputs": [long_text]})).json();
    assert_eq!(embeddings["predictions"][0]["truncated"], true, "of the base model, too");
    let refused = predict(json!({"inputs": ["why?", long_text], "truncate": false}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("input_too_long")), "{}", refused.text());
    assert_eq!(refused.json()["errors"][0]["pointer"], "/inputs/1");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("128 tokens"), "{}", refused.text());
    assert_eq!(predict(json!({"inputs": ["why?"], "truncate": false})).status, 200);
}

#[test]
fn rare_labels_have_weights_and_a_threshold() {
    let app = ServerConfig::new().start();
    let task = json!({"type": "sequence_classification", "class_weights": "balanced"});
    let job = json!({"name": "refunds", "examples": rows(250), "task": task, "hyperparameters": {"epochs": 2}});
    let checked = validate(&app, &job);
    assert_eq!(warnings(&checked["report"], "rare_label").len(), 1, "{:#}", checked["report"]);
    assert_eq!(checked["spec"]["selection_metric"], "macro_f1");
    let job = app.train_to_success(&job);
    let thresholds = &job["metrics"]["validation"]["thresholds"];
    let suggested = thresholds["refund"]["threshold"].as_f64().unwrap();
    assert!(thresholds["refund"]["average_precision"].is_number() && thresholds["other"].is_null(), "{thresholds:#}");
    let label = |threshold: Value| {
        let body = json!({"inputs": ["refund the fee of order 7"], "threshold": threshold});
        let answer = app.post("/predict?adapter=refunds", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["predictions"][0]["label"].as_str().unwrap().to_string()
    };
    assert_eq!([label(json!(0.0)), label(json!(1.0))], ["refund", "other"]);
    assert_eq!(label(json!({"other": 0.0})), "other");
    assert_eq!(label(json!("suggested")), label(json!(suggested)));
    let wrong = [json!({"fraud": 0.5}), json!(2), json!("best")];
    for threshold in wrong {
        let answer = app.post("/predict?adapter=refunds", &json!({"inputs": ["a"], "threshold": threshold}));
        assert_eq!(answer.status, 422, "{}", answer.text());
    }
    let weights = json!({"type": "sequence_classification", "class_weights": {"refunds": 5}});
    let refused = app.post("/jobs", &json!({"examples": rows(50), "task": weights}));
    assert_eq!(refused.json()["errors"][0]["pointer"], "/task/class_weights/refunds", "{}", refused.text());
}

#[test]
fn rows_of_both_datasets_and_unknown_text_are_findings() {
    let app = ServerConfig::new().start();
    let file = "text,label\nRefund the  FEE of order 25,refund\nwhere is my money,other\n";
    let dataset = app.post_file("/datasets", ("options", &json!({})), ("dataset", "valid.csv", file.as_bytes()));
    assert_eq!(dataset.status, 201, "{}", dataset.text());
    let job = json!({"examples": rows(50), "validation": {"dataset_id": dataset.json()["id"]},
        "hyperparameters": {"max_steps": 2}});
    let found = warnings(&validate(&app, &job)["report"], "shared_with_validation");
    assert!(found[0]["message"].as_str().unwrap().starts_with("1 of the 2 rows"), "{found:?}");
    assert_eq!(app.train_to_success(&job)["metrics"]["validation"]["shared_with_training"], 1);

    let emoji = json!([{"text": "\u{1f600} \u{1f621}", "label": "a"}, {"text": "\u{1f60d}", "label": "b"}]);
    let refused = app.post("/jobs", &json!({"examples": emoji}));
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.json()["detail"].as_str().unwrap().contains("vocabulary"), "{}", refused.text());
}

#[test]
fn rows_that_the_file_marks_for_validation_validate_its_job() {
    let app = ServerConfig::new().start();
    let mut examples = rows(100);
    for (index, row) in examples.iter_mut().enumerate() {
        row["split"] = json!(["train", "train", "train", "validation", "test"][index % 5]);
    }
    // The refunds are every twenty-fifth row: some of them are to be validated on.
    for index in [25, 75] {
        examples[index]["split"] = json!("validation");
    }
    let job = json!({"examples": examples, "hyperparameters": {"max_steps": 2}});
    let checked = validate(&app, &job);
    assert_eq!(checked["spec"]["validation"], json!({"split": "validation"}));
    assert_eq!(checked["report"]["left_out"], json!({"split: validation": 22, "split: test": 20}));
    let finished = app.train_to_success(&job);
    let metrics = &finished["metrics"];
    assert_eq!((&metrics["training_examples"], &metrics["validation"]["examples"]), (&json!(58), &json!(22)));

    let mut fraction = job.clone();
    fraction["validation"] = json!({"fraction": 0.2});
    assert_eq!(validate(&app, &fraction)["spec"]["validation"], json!({"fraction": 0.2}));
    let mut test = job;
    test["validation"] = json!({"split": "test"});
    assert_eq!(validate(&app, &test)["spec"]["validation"], json!({"split": "test"}));
    test["examples"].as_array_mut().unwrap().retain(|row| row["split"] != "test");
    let refused = app.post("/jobs?validate_only=true", &test);
    let detail = refused.json()["detail"].to_string();
    assert_eq!(refused.status, 422, "{detail}");
    assert!(
        detail.contains("the validation dataset") && detail.contains("takes a share of the training rows"),
        "{detail}"
    );
}
