//! Tests of token classification, embeddings and masked language models.

use crate::api::server_process::{ServerConfig, ServerProcess};
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};

const CITIES: [&str; 4] = ["Berlin", "New York", "Łódź", "Rome"];
const DAYS: [&str; 3] = ["today", "on Friday", "tomorrow"];

/// Sentence with a city and a day, and their offsets in code points.
fn tagged_sentence(index: usize) -> (String, Vec<Value>) {
    let (city, day) = (CITIES[index % 4], DAYS[index % 3]);
    let (before, between) = [("please book ", " for "), ("a flight to ", " "), ("é, ", ": arriving ")][(index / 4) % 3];
    let text = format!("{before}{city}{between}{day} {index}");
    let mut entities = Vec::new();
    for (label, part) in [("city", city), ("day", day)] {
        let start = text[..text.find(part).unwrap()].chars().count();
        entities.push(json!({"start": start, "end": start + part.chars().count(), "label": label}));
    }
    (text, entities)
}

fn predict(app: &ServerProcess, adapter: &str, inputs: &Value) -> Vec<Value> {
    let answer = app.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": inputs}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["predictions"].as_array().unwrap().clone()
}

/// Label and offsets of every entity.
fn entity_spans(found: &Value) -> Vec<(String, u64, u64)> {
    let place = |one: &Value| {
        (one["label"].as_str().unwrap().to_string(), one["start"].as_u64().unwrap(), one["end"].as_u64().unwrap())
    };
    found.as_array().unwrap().iter().map(place).collect()
}

#[test]
fn entity_spans_are_learned_and_predicted() {
    let app = ServerConfig::new().start();
    let rows: Vec<Value> = (0..96)
        .map(|index| {
            let (text, entities) = tagged_sentence(index);
            json!({"text": text, "entities": entities})
        })
        .collect();
    let job = json!({"name": "journeys", "examples": rows, "hyperparameters": {"epochs": 40, "learning_rate": 0.01}});
    let job = app.train_to_success(&job);
    assert_eq!((&job["task"]["type"], &job["method"]["type"]), (&json!("token_classification"), &json!("lora")));
    assert_eq!(job["metrics"]["validation"]["per_class"][0]["label"], "city");
    assert!(job["metrics"]["validation"]["f1"].as_f64().unwrap() > 0.9, "{:#}", job["metrics"]);
    let asked: Vec<(String, Vec<Value>)> = (200..220).map(tagged_sentence).collect();
    let answers = predict(&app, "journeys", &json!(asked.iter().map(|(text, _)| text).collect::<Vec<_>>()));
    let right = answers
        .iter()
        .zip(&asked)
        .filter(|(found, (_, meant))| entity_spans(&found["entities"]) == entity_spans(&json!(meant)));
    assert!(right.count() >= 18, "of 20: {answers:#?}");
    let text = answers[1]["entities"][0]["text"].as_str().unwrap();
    assert_eq!(text, CITIES[201 % 4], "the words are quoted as they stand there");
    // Token classification does not accept pairs.
    let refused = app.post("/predict?adapter=journeys", &json!({"inputs": [{"text": "a", "text_pair": "b"}]}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("no_pairs")));
}

#[test]
fn token_tags_are_learned_and_predicted() {
    let app = ServerConfig::new().start();
    let row = |index: usize| {
        let (city, day) = (CITIES[index % 4].split(' ').next().unwrap(), ["Friday", "today", "Monday"][index % 3]);
        let tokens = json!(["fly", "to", city, day, index.to_string(), "."]);
        json!({"tokens": tokens, "tags": ["VERB", "PREP", "CITY", "DAY", "NUMBER", "SIGN"]})
    };
    let mut file = String::new();
    (0..64).for_each(|index| file.push_str(&format!("{}\n", row(index))));
    let job = json!({"name": "words", "hyperparameters": {"epochs": 30, "learning_rate": 0.01}});
    let queued = app.post_file("/jobs", ("job", &job), ("dataset", "words.jsonl", file.as_bytes()));
    assert_eq!(queued.status, 202, "{}", queued.text());
    let job = app.wait_for_job(queued.json()["id"].as_str().unwrap());
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let answers =
        predict(&app, "words", &json!([{"tokens": ["fly", "to", "Rome", "today", "99", "."]}, "fly to Rome"]));
    assert_eq!(answers[0]["tags"], json!(["VERB", "PREP", "CITY", "DAY", "NUMBER", "SIGN"]), "{:#}", answers[0]);
    assert_eq!(answers[1]["tags"], Value::Null, "nobody gave tokens");
    let third = &answers[1]["entities"][2];
    assert_eq!((&third["label"], &third["text"], &third["start"]), (&json!("CITY"), &json!("Rome"), &json!(7)));
}

/// Cosine similarity of normalized vectors.
fn cosine(one: &Value, other: &Value) -> f64 {
    let numbers = |row: &Value| -> Vec<f64> {
        row["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let (one, other) = (numbers(one), numbers(other));
    let length: f64 = one.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5, "an embedding has length 1, not {length}");
    one.iter().zip(&other).map(|(one, other)| one * other).sum()
}

#[test]
fn embeddings_learn_from_positive_pairs() {
    let app = ServerConfig::new().start();
    let kinds = [("when will it arrive", "delivery"), ("why was I charged", "costs"), ("how can I change it", "help")];
    let row = |index: usize| {
        let (text, positive) = kinds[index % 3];
        json!({"text": format!("{text} number {index}"), "positive": format!("{positive} {}", index % 5),
            "negative": format!("{} {}", kinds[(index + 1) % 3].1, index % 5)})
    };
    let rows: Vec<Value> = (0..60).map(row).collect();
    let job = json!({"name": "near", "examples": rows, "hyperparameters": {"epochs": 12, "learning_rate": 0.01}});
    let job = app.train_to_success(&job);
    assert_eq!(job["task"]["loss"], "multiple_negatives_ranking", "{:#}", job["task"]);
    assert!(job["metrics"]["validation"]["mrr_at_10"].as_f64().unwrap() > 0.3, "{:#}", job["metrics"]);
    let asked = json!(["when will it arrive number 99", "delivery 1", "costs 1", "help 1"]);
    let answers = predict(&app, "near", &asked);
    let near: Vec<f64> = (1..4).map(|other| cosine(&answers[0], &answers[other])).collect();
    assert!(near[0] > near[1] + 0.1 && near[0] > near[2] + 0.1, "{near:?}");
    let logits = app.post("/predict?adapter=near", &json!({"inputs": ["a"], "logits": true}));
    assert_eq!(logits.status, 200, "there is nothing behind an embedding: {}", logits.text());
    // The method `head` needs a task with a head.
    let rows: Vec<Value> = (0..6).map(row).collect();
    let refused = app.post("/jobs", &json!({"examples": rows, "method": {"type": "head"}}));
    assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/method/type")));
}

#[test]
fn embeddings_learn_scores() {
    let app = ServerConfig::new().start();
    let texts = ["a card", "a fee", "a refund"];
    let row = |index: usize| {
        let (one, other) = (texts[index % 3], texts[(index / 3) % 3]);
        let score = if one == other { 5 } else { 0 };
        json!({"text": format!("{one} {index}"), "text_pair": format!("please {other}"), "score": score})
    };
    let rows: Vec<Value> = (0..90).map(row).collect();
    let job = json!({"name": "alike", "examples": rows, "task": {"type": "embedding"},
        "method": {"type": "lora", "target_modules": "all-linear"},
        "hyperparameters": {"epochs": 60, "learning_rate": 0.01, "batch_size": 8}});
    let job = app.train_to_success(&job);
    assert_eq!(job["task"]["loss"], "cosine");
    assert!(job["metrics"]["validation"]["pearson"].as_f64().unwrap() > 0.6, "{:#}", job["metrics"]);
    let answers = predict(&app, "alike", &json!(["a card 7", "please a card", "please a fee"]));
    assert!(cosine(&answers[0], &answers[1]) > cosine(&answers[0], &answers[2]) + 0.2);
}

#[test]
fn invalid_token_and_pair_rows_are_reported() {
    let app = ServerConfig::new().start();
    let good = json!({"tokens": ["a", "b"], "tags": ["X", "Y"]});
    let text = json!({"text": "in Rome", "entities": [{"start": 3, "end": 7, "label": "city"}]});
    let pair = json!({"text": "a", "positive": "b"});
    let scored = json!({"text": "a", "text_pair": "b", "score": 1});
    let entity =
        |start: u32, end: u32| json!({"text": "in Rome", "entities": [{"start": start, "end": end, "label": "c"}]});
    for (good, row, words) in [
        (&good, json!({"tokens": ["a", "b"], "tags": ["X"]}), "2 tokens and 1 tags"),
        (&good, json!({"tokens": ["a", " "], "tags": ["X", "Y"]}), "one of the tokens is empty"),
        (&good, json!({"tokens": "a b", "tags": ["X", "Y"]}), "`tokens` is a string, and has to be a list"),
        (&good, json!({"tokens": ["a", 1], "tags": ["X", "Y"]}), "`tokens` is a number, and has to be a string"),
        (&good, json!({"tokens": ["a", "b"]}), "no \"tags\""),
        (&good, json!({"tokens": ["a"], "tags": [""]}), "the label is empty"),
        (&text, entity(3, 8), "is not within the text, which has 7 characters"),
        (&text, entity(2, 3), "holds no word"),
        (&text, json!({"text": "in Rome", "entities": {"start": 1}}), "has to be a list of objects like"),
        (&text, json!({"text": "in Rome", "entities": [{"start": -1, "end": 2, "label": "c"}]}), "a list of objects"),
        (&pair, json!({"text": "a", "positive": " "}), "the positive is empty"),
        (&pair, json!({"text": "a", "positive": ["b", "c"]}), "`positive` has several texts"),
        (&scored, json!({"text": "a", "score": 1}), "no \"text_pair\""),
        (&scored, json!({"text": "a", "text_pair": "b", "score": "near"}), "`score` is \"near\""),
    ] {
        let refused = app.post("/jobs", &json!({"examples": [good, row]}));
        assert_eq!(refused.status, 422, "{row}: {}", refused.text());
        let problem = refused.json();
        let fault = &problem["errors"][0];
        assert_eq!(fault["pointer"], "/examples/1", "{row}: {problem:#}");
        assert!(fault["message"].as_str().unwrap().contains(words), "{row}: {problem:#}");
    }
    for (rows, words) in [
        (json!([{"tokens": ["a"], "tags": ["X"]}]), "every word has the tag \"X\""),
        (json!([pair]), "there is one usable row"),
        (json!([scored, scored]), "every usable row has the same score"),
    ] {
        let refused = app.post("/jobs", &json!({"examples": rows}));
        let detail = refused.json()["detail"].as_str().unwrap().to_string();
        assert!(detail.contains(words), "{detail}");
    }
}

/// Starts a server with a small BERT that has a masked language modelling head and a vocabulary of these words.
fn start_with_lm_head() -> ServerProcess {
    ServerConfig::new().with_base_model(fixture("language").join("bert")).start()
}

#[test]
fn masked_lm_adapts_to_a_domain_and_warm_starts_other_tasks() {
    let app = start_with_lm_head();
    let told = app.get("/base").json();
    assert_eq!(told["mask_token"], "[MASK]");
    let facts = [("card", "lost"), ("money", "stolen"), ("account", "new"), ("order", "home")];
    let rows: Vec<Value> = (0..96)
        .map(|index| {
            let (thing, state) = facts[index % 4];
            json!({"text": format!("{} my {thing} is {state}", ["please", "why", "now", "how", "and"][index % 5])})
        })
        .collect();
    let job = json!({"name": "domain", "task": {"type": "masked_language_model", "mask_probability": 0.3},
        "examples": rows, "method": {"type": "lora", "target_modules": "all-linear"},
        "hyperparameters": {"epochs": 60, "learning_rate": 0.01, "batch_size": 8}});
    let job = app.train_to_success(&job);
    let figures = &job["metrics"]["validation"];
    assert!(figures["accuracy"].as_f64().unwrap() > 0.4, "{figures:#}");
    let asked = json!({"inputs": ["why my card is [MASK]", "why my money is [MASK] [MASK]"], "top_k": 3});
    let answer = app.post("/predict?adapter=domain", &asked);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let fills = |index: usize| answer.json()["predictions"][index]["fills"].clone();
    assert_eq!(fills(0).as_array().unwrap().len(), 1);
    assert_eq!(fills(1).as_array().unwrap().len(), 2);
    assert_eq!(fills(0)[0].as_array().unwrap().len(), 3);
    assert_eq!(fills(0)[0][0]["token"], "lost", "{:#}", fills(0));
    let refused = app.post("/predict?adapter=domain", &json!({"inputs": ["why my card is lost"]}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("no_mask")), "{}", refused.text());
    // A classifier can be initialized from the domain-adapted adapter.
    let rows: Vec<Value> = (0..40)
        .map(|index| json!({"text": format!("my {} {index}", facts[index % 4].0), "label": facts[index % 4].1}))
        .collect();
    let job = app.train_to_success(&json!({"name": "classes", "examples": rows, "from_adapter": "domain"}));
    assert_eq!(job["method"]["target_modules"].as_array().unwrap().len(), 6, "{:#}", job["method"]);
}

#[test]
fn base_without_mlm_head_rejects_masked_lm() {
    let app = ServerConfig::new().start();
    let rows = json!([{"text": "a card"}, {"text": "a fee"}]);
    let refused = app.post("/jobs", &json!({"examples": rows, "task": {"type": "masked_language_model"}}));
    assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/task/type")));
}
