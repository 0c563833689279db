//! Tests of embeddings and reranking in the formats of OpenAI, Cohere, Jina and Text Embeddings Inference.

use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use serde_json::{Value, json};

const TEXTS: [&str; 3] = ["where is my card?", "how do I pay?", "the train to Riga is late"];

fn base_name(app: &ServerProcess) -> String {
    app.get("/base").json()["name"].as_str().unwrap().to_string()
}

fn ok(app: &ServerProcess, path: &str, body: &Value) -> Value {
    let answer = app.post(path, body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_close(one: &[f64], other: &[f64]) {
    assert_eq!(one.len(), other.len());
    assert!(one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-4), "{one:?} {other:?}");
}

/// Embedding of `/predict`, scaled to length 1.
fn predicted(app: &ServerProcess, text: &str) -> Vec<f64> {
    let embedding = numbers(&ok(app, "/predict", &json!({"inputs": [text]}))["predictions"][0]["embedding"]);
    let length = embedding.iter().map(|value| value * value).sum::<f64>().sqrt();
    embedding.iter().map(|value| value / length).collect()
}

#[test]
fn embeddings_are_those_of_predict_in_every_format() {
    let app = ServerConfig::new().with_arguments(&["--max-inputs", "2"]).start();
    let model = base_name(&app);
    let expected = TEXTS.map(|text| predicted(&app, text));
    // More texts than one prediction request may have.
    let list = ok(&app, "/v1/embeddings", &json!({"model": model, "input": TEXTS}));
    for (index, expected) in expected.iter().enumerate() {
        assert_eq!(list["data"][index]["index"], index);
        assert_close(&numbers(&list["data"][index]["embedding"]), expected);
    }
    assert!(list["usage"]["total_tokens"].as_u64().unwrap() > 9, "{list}");
    let one = ok(&app, "/v1/embeddings", &json!({"model": model, "input": TEXTS[0], "user": "a", "dimensions": 4.0}));
    let short = numbers(&one["data"][0]["embedding"]);
    assert_eq!(short.len(), 4);
    assert!((short.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-4);
    let embed = ok(&app, "/embed", &json!({"inputs": TEXTS}));
    assert_close(&numbers(&embed[2]), &expected[2]);
    assert_close(&numbers(&ok(&app, "/embed", &json!({"inputs": TEXTS[1]}))[0]), &expected[1]);

    let similarity =
        ok(&app, "/similarity", &json!({"inputs": {"source_sentence": TEXTS[0], "sentences": [TEXTS[0], TEXTS[2]]}}));
    assert!((similarity[0].as_f64().unwrap() - 1.0).abs() < 1e-4, "{similarity}");
    let body = json!({"model": model, "query": TEXTS[0], "documents": [TEXTS[2], {"text": TEXTS[0]}], "top_n": 1, "return_documents": true});
    let ranked = ok(&app, "/v1/rerank", &body);
    assert_eq!((ranked["results"].as_array().unwrap().len(), &ranked["results"][0]["index"]), (1, &json!(1)));
    assert_eq!(ranked["results"][0]["document"]["text"], TEXTS[0]);
    let ranked = ok(&app, "/rerank", &json!({"query": TEXTS[0], "texts": [TEXTS[2], TEXTS[0]]}));
    assert_eq!((&ranked[0]["index"], &ranked[1]["index"]), (&json!(1), &json!(0)));
    assert_eq!(app.get("/info").json()["model_id"], model);
}

#[test]
fn wrong_embedding_requests_name_the_field() {
    let app = ServerConfig::new().start();
    let model = base_name(&app);
    let long = "where is it ".repeat(200);
    for (body, status, code, param) in [
        (json!({"model": model, "input": ["a", " "]}), 400, "empty_input", json!("input[1]")),
        (json!({"model": model, "input": []}), 400, "invalid_body", json!("input")),
        (json!({"model": model, "input": ["a", long]}), 400, "context_length_exceeded", json!("input[1]")),
        (json!({"model": model, "input": "a", "dimensions": 100_000}), 400, "invalid_body", json!("dimensions")),
        (json!({"model": model, "input": [1, 999_999]}), 400, "invalid_body", json!("input")),
        (json!({"model": model, "input": {"text": "a"}}), 400, "invalid_body", json!("input")),
        (json!({"model": "none", "input": "a"}), 404, "model_not_found", Value::Null),
    ] {
        let answer = app.post("/v1/embeddings", &body);
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["code"], &error["param"]), (status, &json!(code), &param), "{body}: {error}");
    }
    let error = app.post("/v1/embeddings", &json!({"model": model, "input": long})).json()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("maximum context length"), "{error}");
    ok(&app, "/v1/embeddings", &json!({"model": model, "input": long, "truncate": true}));
}

#[test]
fn adapters_of_pairs_rerank() {
    let app = ServerConfig::new().start();
    let pair = |index: usize| {
        let is_relevant = index.is_multiple_of(2);
        let second = if is_relevant { format!("card {index}") } else { format!("train {index}") };
        json!({"text": format!("card {index}"), "text_pair": second, "label": if is_relevant { "relevant" } else { "other" }})
    };
    let examples: Vec<Value> = (0..40).map(pair).collect();
    app.train_to_success(&json!({"name": "pairs", "examples": examples, "hyperparameters": {"epochs": 3}}));
    let ranked =
        ok(&app, "/v1/rerank", &json!({"model": "pairs", "query": "card 3", "documents": ["train 4", "card 3"]}));
    let scores = ranked["results"].as_array().unwrap().iter().map(|result| result["relevance_score"].as_f64().unwrap());
    assert!(
        scores.clone().all(|score| (0.0..=1.0).contains(&score))
            && scores.clone().is_sorted_by(|one, other| one >= other)
    );
    app.train_to_success(&small_job(30, json!({"name": "questions", "hyperparameters": {"epochs": 1}})));
    let refused = app.post("/v1/rerank", &json!({"model": "questions", "query": "a", "documents": ["b"]}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("no_relevance")), "{}", refused.text());
    let refused = app.post("/v1/embeddings", &json!({"model": "questions", "input": "a"}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("no_embedding")), "{}", refused.text());
}
