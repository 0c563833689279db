//! Tests of regression and multi-label classification. Targets depend on single words, so a trained adapter must predict them.

use crate::api::server_process::{ServerConfig, ServerProcess};
use serde_json::{Value, json};

const WORDS: [&str; 3] = ["card", "fee", "refund"];

/// Texts with any subset of three words, and the subset.
fn texts(count: usize) -> Vec<(String, [bool; 3])> {
    let fillers = ["please", "my account", "the bank", "why", "on order", "a transfer"];
    let text = |index: usize| {
        let has = [index % 2 == 1, (index / 2) % 2 == 1, (index / 4) % 2 == 1];
        let named: Vec<&str> = WORDS.iter().zip(has).filter(|(_, has)| *has).map(|(word, _)| *word).collect();
        let (before, after) = (fillers[index % fillers.len()], fillers[(index / 3) % fillers.len()]);
        (format!("{before} {} {after} {}", named.join(" "), index % 10), has)
    };
    (0..count).map(text).collect()
}

fn predictions(app: &ServerProcess, adapter: &str, inputs: &[String]) -> Vec<Value> {
    let answer = app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["predictions"].as_array().unwrap().clone()
}

#[test]
fn regression_returns_values_in_the_label_unit() {
    let app = ServerConfig::new().start();
    let value = |has: &[bool; 3]| 1000.0 + 50.0 * f64::from(u8::from(has[0])) - 20.0 * f64::from(u8::from(has[1]));
    let rows: Vec<Value> = texts(96).iter().map(|(text, has)| json!({"text": text, "value": value(has)})).collect();
    let job =
        json!({"name": "amounts", "examples": rows, "method": {"type": "lora"}, "hyperparameters": {"epochs": 30}});
    let job = app.train_to_success(&job);
    assert_eq!(job["task"]["type"], "regression", "the fields of the rows say so");
    assert!(job["metrics"]["validation"]["pearson"].as_f64().unwrap() > 0.9, "{:#}", job["metrics"]);
    let asked: Vec<(String, [bool; 3])> = texts(200).split_off(160);
    let inputs: Vec<String> = asked.iter().map(|(text, _)| text.clone()).collect();
    let answers = predictions(&app, "amounts", &inputs);
    let squared = answers
        .iter()
        .zip(&asked)
        .map(|(prediction, (_, has))| (prediction["value"].as_f64().unwrap() - value(has)).powi(2));
    let error = (squared.sum::<f64>() / 40.0).sqrt();
    assert!(error < 12.0, "of values that vary by 26 the mean error is {error}");
}

#[test]
fn multi_label_classifier_predicts_any_number_of_labels() {
    let app = ServerConfig::new().start();
    let labels = |has: &[bool; 3]| -> Vec<&str> {
        WORDS.iter().zip(has).filter(|(_, has)| **has).map(|(word, _)| *word).collect()
    };
    let mut file = "text,labels\n".to_string();
    texts(96).iter().for_each(|(text, has)| file.push_str(&format!("{text},{}\n", labels(has).join("; "))));
    let job =
        json!({"name": "tags", "method": {"type": "ia3"}, "hyperparameters": {"epochs": 30, "learning_rate": 0.01}});
    let queued = app.post_file("/jobs", ("job", &job), ("dataset", "tags.csv", file.as_bytes()));
    assert_eq!(queued.status, 202, "{}", queued.text());
    let job = app.wait_for_job(queued.json()["id"].as_str().unwrap());
    assert_eq!(job["status"], "succeeded", "{job:#}");
    assert_eq!(job["task"]["multi_label"], true);
    assert!(job["metrics"]["validation"]["micro_f1"].as_f64().unwrap() > 0.9, "{:#}", job["metrics"]);
    let asked: Vec<(String, [bool; 3])> = texts(200).split_off(160);
    let inputs: Vec<String> = asked.iter().map(|(text, _)| text.clone()).collect();
    let answers = predictions(&app, "tags", &inputs);
    let right = answers.iter().zip(&asked).filter(|(prediction, (_, has))| {
        let mut given: Vec<&str> =
            prediction["labels"].as_array().unwrap().iter().map(|one| one["label"].as_str().unwrap()).collect();
        given.sort_unstable();
        given == labels(has)
    });
    assert!(right.count() >= 36, "of 40");
}

#[test]
fn rows_of_the_wrong_schema_are_reported() {
    let app = ServerConfig::new().start();
    let regression = json!({"type": "regression"});
    for (task, row, words) in [
        (regression.clone(), json!({"text": "a", "value": "much"}), "has to be a number"),
        (regression.clone(), json!({"text": "a", "value": [1]}), "is a list, and has to be a number"),
        (regression, json!({"text": "a", "label": "b"}), "no \"value\""),
        (
            json!({"type": "sequence_classification", "multi_label": true}),
            json!({"text": "a", "labels": ["b", null]}),
            "is null, and has to be a string",
        ),
    ] {
        let refused =
            app.post("/jobs", &json!({"task": task, "examples": [{"text": "b", "value": 1, "labels": []}, row]}));
        assert_eq!(refused.status, 422, "{}", refused.text());
        let problem = refused.json();
        let fault = &problem["errors"][0];
        assert_eq!(fault["pointer"], "/examples/1", "{problem:#}");
        assert!(fault["message"].as_str().unwrap().contains(words), "{problem:#}");
    }
    let same: Vec<Value> = (0..4).map(|index| json!({"text": format!("text {index}"), "value": 3})).collect();
    let refused = app.post("/jobs", &json!({"examples": same}));
    assert!(refused.text().contains("every usable row has the same value"), "{}", refused.text());
}

#[test]
fn smallest_datasets_train_with_any_validation_split() {
    let app = ServerConfig::new().start();
    let value = |text: &str, value: f64| json!({"text": text, "value": value});
    let set = |text: &str, labels: Value| json!({"text": text, "labels": labels});
    let few = [("card", 1.0), ("fee", 2.0), ("refund", 4.0), ("account", 3.0), ("bank", 5.0), ("cash", 2.5)];
    // The validation split has one text, and the task has one label.
    let one: Vec<Value> = few.iter().map(|(text, number)| value(text, *number)).collect();
    let labels: Vec<Value> = few
        .iter()
        .enumerate()
        .map(|(index, (text, _))| set(text, [json!([]), json!(["any"])][index % 2].clone()))
        .collect();
    for (name, rows) in [("one", one), ("labels", labels)] {
        let job = json!({"name": name, "examples": rows, "method": {"type": "lora"}, "hyperparameters": {"epochs": 2}});
        app.train_to_success(&job);
        assert_eq!(predictions(&app, name, &["my card".to_string()]).len(), 1);
    }
}
