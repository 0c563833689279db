//! Tests of OpenTelemetry traces: what is exported, and how a trace continues through headers, the queue and other processes.

use crate::api::otlp_collector::{Collector, ReceivedSpan};
use crate::api::request::{get, post};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use crate::support::database::Database;
use espalier_testing::folders::read_zip;
use espalier_testing::hub_server;
use espalier_testing::jobs::fixture;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::runtime::Runtime;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn config(collector: &Collector) -> ServerConfig {
    ServerConfig::new().with_environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
}

/// Stops a server, which sends its last spans.
fn stop(mut app: ServerProcess) {
    let (status, _) = app.terminate();
    assert!(status.success(), "{status}");
}

fn named<'a>(spans: &'a [ReceivedSpan], name: &str) -> Vec<&'a ReceivedSpan> {
    spans.iter().filter(|span| span.name() == name).collect()
}

fn only<'a>(spans: &'a [ReceivedSpan], name: &str) -> &'a ReceivedSpan {
    let found = named(spans, name);
    let names: Vec<&str> = spans.iter().map(ReceivedSpan::name).collect();
    assert_eq!(found.len(), 1, "{name} among {names:?}");
    found[0]
}

/// Log lines as JSON.
fn lines(app: &ServerProcess) -> Vec<Value> {
    app.log().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_request_and_its_training_attempt_are_one_trace_over_two_processes() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(Database::postgres());
    let collector = Collector::start();
    let setup = config(&collector).with_database(database.url().to_string());
    let api = setup.clone().with_arguments(&["--role", "api"]).start();
    let worker = setup.clone().with_arguments(&["--role", "worker", "--poll-interval", "50ms"]).start();
    let job = small_job(60, json!({"name": "questions", "hyperparameters": {"epochs": 3}}));
    let request = post("/jobs", &job).with_header("traceparent", &traceparent("01"));
    let answer = request.with_header("tracestate", "vendor=a").send(&api);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_string();
    assert_eq!(api.wait_for_job(&id)["status"], "succeeded");
    let traceresponse = answer.header("traceresponse").unwrap();
    assert!(traceresponse.starts_with(&format!("00-{TRACE}-")) && !traceresponse.contains(PARENT), "{traceresponse}");
    let logged = |app: &ServerProcess, message: &str| {
        let line = lines(app).into_iter().find(|line| line["message"] == message && line["trace_id"] == TRACE);
        line.unwrap_or_else(|| panic!("{message} is logged with the trace: {:#?}", app.log()))
    };
    let line = logged(&api, "request finished");
    assert_eq!((&line["route"], &line["status"], &line["owner"]), (&json!("/jobs"), &json!(202), &json!("default")));
    assert_eq!(line["request_id"], answer.header("x-request-id").unwrap());
    let line = logged(&worker, "adapter published");
    assert_eq!((&line["job"], &line["attempt"]), (&json!(id), &json!(1)));
    stop(worker);
    stop(api);

    let mut spans = collector.spans();
    spans.retain(|span| span.trace_id() == TRACE);
    let request = only(&spans, "POST /jobs");
    assert_eq!(hex::encode(&request.span.parent_span_id), PARENT);
    assert_eq!(request.span.trace_state, "vendor=a");
    assert_eq!(request.attribute("http.response.status_code").as_deref(), Some("202"));
    assert_eq!(request.attribute("espalier.owner").as_deref(), Some("default"));
    let attempt = only(&spans, "job");
    assert!(attempt.is_child_of(request), "the attempt is a child of the request");
    assert_eq!(attempt.attribute("espalier.job").as_deref(), Some(id.as_str()));
    assert_eq!(attempt.span.trace_state, "vendor=a");
    let instance = |span: &ReceivedSpan| span.resource("service.instance.id").unwrap();
    assert_ne!(instance(attempt), instance(request), "another process");
    assert_eq!(attempt.resource("service.name").as_deref(), Some("espalier"));
    let train = only(&spans, "train");
    for name in ["read dataset", "train", "write adapter", "publish"] {
        assert!(only(&spans, name).is_child_of(attempt), "{name}");
    }
    let epochs = named(&spans, "epoch");
    assert_eq!(epochs.len(), 3, "one span per epoch, not per step");
    assert!(epochs.iter().all(|epoch| epoch.is_child_of(train)));
    for name in ["features", "evaluation", "checkpoint"] {
        assert!(named(&spans, name).iter().any(|span| span.is_child_of(train)), "{name}");
    }
    let statements = named(&spans, "database");
    assert!(statements.iter().any(|span| span.is_child_of(only(&spans, "publish"))));
    let others =
        collector.spans().into_iter().filter(|span| span.name() == "database" && span.span.parent_span_id.is_empty());
    assert_eq!(others.count(), 0, "looking for jobs is no trace");
    runtime.block_on(database.drop_database());
}

#[test]
fn prediction_and_generation_are_traced_in_phases() {
    let collector = Collector::start();
    let app = config(&collector).with_base_model(fixture("decoders").join("llama")).start();
    assert_eq!(app.post("/predict", &json!({"inputs": ["fruit red", "fruit green"]})).status, 200);
    let request = json!({"inputs": ["fruit red"], "max_tokens": 5});
    let generated = app.post("/generate", &request);
    assert_eq!(generated.status, 200, "{}", generated.text());
    let tokens = generated.json()["generations"][0]["usage"]["completion_tokens"].as_u64();
    assert_eq!(app.get("/nowhere").status, 404);
    stop(app);
    let spans = collector.spans();
    let of = |name: &str| {
        let request = only(&spans, name);
        let children = spans.iter().filter(|span| span.trace_id() == request.trace_id());
        children.map(|span| (span.name().to_string(), span)).collect::<BTreeMap<_, _>>()
    };
    let predict = of("POST /predict");
    for name in ["tokenize", "queue", "forward"] {
        assert!(predict[name].is_child_of(predict["POST /predict"]), "{name}");
    }
    assert_eq!(predict["forward"].attribute("inputs").as_deref(), Some("2"));
    let generate = of("POST /generate");
    for name in ["tokenize", "queue", "prefill", "decode"] {
        assert!(generate[name].is_child_of(generate["POST /generate"]), "{name}");
    }
    assert_eq!(generate["decode"].attribute("tokens"), tokens.map(|tokens| tokens.to_string()));
    let (prefill, decode) = (&generate["prefill"].span, &generate["decode"].span);
    assert!(prefill.end_time_unix_nano <= decode.end_time_unix_nano && prefill.start_time_unix_nano > 0);
    assert_eq!(only(&spans, "GET unmatched").attribute("http.response.status_code").as_deref(), Some("404"));
}

#[test]
fn the_hub_is_asked_in_the_trace_of_the_request() {
    let (collector, cache) = (Collector::start(), tempfile::tempdir().unwrap());
    let files = read_zip(&fixture("peft-tiny").join("adapter.zip"));
    let hub = hub_server::Model(files.into_iter().collect()).serve();
    let app = config(&collector)
        .with_environment("HF_ENDPOINT", &hub.address)
        .with_environment("HF_HUB_CACHE", cache.path().to_str().unwrap())
        .start();
    let import = post("/adapters", &json!({"source": "hub:owner/name"}));
    let answer = import.with_header("traceparent", &traceparent("01")).send(&app);
    assert_eq!(answer.status, 201, "{}", answer.text());
    stop(app);
    let spans = collector.spans();
    let download = only(&spans, "download adapter");
    let expected = format!("00-{TRACE}-{}-01", hex::encode(&download.span.span_id));
    let requests = hub.requests();
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|request| request.traceparent.as_ref() == Some(&expected)), "{requests:?}");
}

#[test]
fn sampling_follows_the_parent_then_the_ratio() {
    let collector = Collector::start();
    let app = config(&collector).with_arguments(&["--trace-sample-ratio", "0"]).start();
    let ask = |headers: &[(&'static str, String)]| {
        let request = headers.iter().fold(get("/base"), |request, (name, value)| request.with_header(name, value));
        request.send(&app).header("traceresponse").map(str::to_string)
    };
    assert_eq!(ask(&[]), None);
    assert_eq!(ask(&[("traceparent", traceparent("00"))]), None);
    assert_eq!(ask(&[("traceparent", "00-xyz".to_string())]), None);
    assert!(ask(&[("traceparent", traceparent("01"))]).is_some());
    stop(app);
    assert_eq!(named(&collector.spans(), "GET /base").len(), 1);
}

#[test]
fn a_collector_that_does_not_answer_costs_spans_alone() {
    let app = ServerConfig::new().with_arguments(&["--otlp-endpoint", "http://127.0.0.1:1"]).start();
    assert_eq!(app.get("/base").status, 200);
    app.wait_for_log("spans were not exported");
    let metrics = app.get("/metrics").text();
    let failed = metrics.lines().find_map(|line| line.strip_prefix("espalier_trace_spans_failed_total "));
    assert!(failed.unwrap().parse::<f64>().unwrap() >= 1.0, "{metrics}");
    stop(app);
}

#[test]
fn without_an_endpoint_nothing_is_traced() {
    let app = ServerConfig::new().start();
    let answer = get("/base").with_header("traceparent", &traceparent("01")).send(&app);
    assert_eq!((answer.status, answer.header("traceresponse")), (200, None));
    let job = app.train_to_success(&small_job(24, json!({"hyperparameters": {"epochs": 1}})));
    assert!(job["id"].is_string());
    assert!(lines(&app).iter().all(|line| line["trace_id"].is_null()));
}
