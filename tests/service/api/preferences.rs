//! Tests of preference training on texts and conversations.

use crate::api::generation::{lora, start_with_decoder, train_adapter};
use crate::api::server_process::ServerProcess;
use serde_json::{Value, json};

/// Loss of a job's first step.
fn first_loss(app: &ServerProcess, job: &str) -> f64 {
    let answer = app.agent().get(app.url(&format!("/jobs/{job}/events"))).header("accept", "application/json").call();
    let events: Value = answer.unwrap().body_mut().read_json().unwrap();
    let rows = events["data"].as_array().unwrap().iter().filter(|event| event["kind"] == "metrics");
    let first = rows.map(|event| &event["data"]).find(|row| row["split"] == "train").expect("a first step");
    first["metrics"]["loss"].as_f64().unwrap()
}

#[test]
fn preference_training_raises_the_chosen_answers_likelihood() {
    let app = start_with_decoder("qwen3", &[]);
    let triple = |index: usize| {
        let (asked, better, worse) = [("red", " apple", " stone"), ("green", " pear", " brick")][index % 2];
        json!({"prompt": format!("fruit {asked} {}", index / 2 % 4), "chosen": better, "rejected": worse})
    };
    let rows: Vec<Value> = (0..40).map(triple).collect();
    let learn = |name: &str, method: &Value, fields: Value| {
        let mut job = json!({"name": name, "examples": rows, "method": method});
        job.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        app.train_to_success(&job)
    };
    let once = json!({"hyperparameters": {"max_steps": 1}});
    let methods = json!([lora(), {"type": "lora", "dora": true}, {"type": "ia3"}, {"type": "prompt_tuning"}, {"type": "p_tuning"},
        {"type": "prefix_tuning"}, {"type": "bottleneck"}, {"type": "layer_norm"}, {"type": "vera"}]);
    for method in methods.as_array().unwrap() {
        let job = learn("once", method, once.clone());
        let loss = first_loss(&app, job["id"].as_str().unwrap());
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-5, "{method}: {loss}");
    }
    let job = learn("liked", &lora(), json!({"hyperparameters": {"epochs": 10, "learning_rate": 0.005}}));
    assert_eq!(job["task"]["type"], "preference");
    let figures = &job["metrics"]["validation"];
    assert!(figures["margin"].as_f64().unwrap() > 0.5 && figures["accuracy"] == 1.0, "{figures:#}");
    // The reference model of a job initialized from an adapter is that adapter.
    let further = json!({"examples": rows, "from_adapter": "liked", "task": {"type": "preference", "beta": 0.5},
        "hyperparameters": {"max_steps": 1}});
    let job = app.train_to_success(&further);
    let loss = first_loss(&app, job["id"].as_str().unwrap());
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-5, "{loss}");
    // Equal completions, and a missing completion.
    let wrong = json!([{"prompt": "a", "chosen": "b", "rejected": "b"}, {"prompt": "a", "chosen": "b"},
        {"prompt": "a", "chosen": "", "rejected": "c"}]);
    let refused = app.post("/jobs", &json!({"examples": wrong}));
    assert_eq!((refused.status, refused.json()["errors"].as_array().unwrap().len()), (422, 3), "{}", refused.text());
}

/// Formats of TRL's datasets: a prompt of messages with completions of messages or text, or two whole conversations.
fn conversation(index: usize) -> Value {
    let (asked, better, worse) = [("red", "apple", "stone"), ("green", "pear", "brick")][index % 2];
    let user = json!({"role": "user", "content": format!("fruit {asked}")});
    let said = |text: &str| json!({"role": "assistant", "content": text});
    let hello = [json!({"role": "user", "content": "hi"}), said("hello")];
    match index % 3 {
        0 => json!({"prompt": [user], "chosen": [said(better)], "rejected": [said(worse)]}),
        1 => json!({"prompt": [user], "chosen": better, "rejected": worse}),
        _ => {
            json!({"chosen": [hello[0], hello[1], user, said(better)], "rejected": [hello[0], hello[1], user, said(worse)]})
        }
    }
}

#[test]
fn conversations_are_preferred_turn_by_turn() {
    let app = start_with_decoder("qwen2", &[]);
    let rows: Vec<Value> = (0..36).map(conversation).collect();
    let job = train_adapter(&app, "polite", &rows, json!({"hyperparameters": {"epochs": 10, "learning_rate": 0.005}}));
    assert_eq!(job["task"]["type"], "preference");
    let figures = &job["metrics"]["validation"];
    assert!(figures["margin"].as_f64().unwrap() > 0.5 && figures["accuracy"] == 1.0, "{figures:#}");
    let once = train_adapter(&app, "once", &rows, json!({"hyperparameters": {"max_steps": 1}}));
    let loss = first_loss(&app, once["id"].as_str().unwrap());
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-5, "{loss}");
    let ends_with_a_question = json!([{"role": "user", "content": "a"}]);
    let wrong = json!([
        {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "b"},
        {"prompt": [{"role": "user", "content": "a"}], "chosen": ends_with_a_question, "rejected": "b"},
        {"prompt": [{"content": "a"}], "chosen": "b", "rejected": "c"},
        {"prompt": [{"role": "user", "content": "a"}], "chosen": 3, "rejected": "c"},
        {"prompt": [{"role": "user", "content": "a"}], "chosen": "b"},
        {"prompt": [{"role": "system", "content": "s"}], "chosen": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"}], "rejected": "c"},
    ]);
    let refused = app.post("/jobs", &json!({"examples": wrong, "task": {"type": "preference"}}));
    assert_eq!((refused.status, refused.json()["errors"].as_array().unwrap().len()), (422, 6), "{}", refused.text());
}
