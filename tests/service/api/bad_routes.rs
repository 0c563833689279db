//! Tests of invalid paths, methods, ids, pages and actions, and of missing keys.

use crate::api::error_cases::{ErrorCase, check_cases, error_case};
use crate::api::request::{bytes, delete, get, post, request_without_body};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use crate::support::samples::new_adapter;
use serde_json::json;
use std::fs;

const UNKNOWN_ID: &str = "01938f3e-5a1c-7c3e-9d0a-3b1f0c2d4e5f";
const KEY: &str = "a-key-of-sufficient-length";

#[test]
fn unknown_path_or_method_lists_the_alternatives() {
    let app = ServerConfig::new().start();
    let unknown = |path: &str| error_case(path, get(path), 404, "route_not_found", "GET /docs");
    let mut cases = vec![
        unknown("/job"),
        unknown("/v2/jobs"),
        unknown("/adapters/a/b"),
        unknown("/..%2f..%2fetc/passwd"),
        error_case("a file that the page has not", get("/docs/nothing.css"), 404, "file_not_found", "/docs/"),
        error_case("a path out of the page", get("/docs/..%2f..%2fCargo.toml"), 404, "file_not_found", "/docs/"),
        error_case("a path that is not UTF-8", get("/adapters/%ff"), 400, "unreadable_path", "UTF-8"),
    ];
    let methods = [
        ("PUT", "/jobs", "POST"),
        ("DELETE", "/jobs", "GET"),
        ("GET", "/predict", "POST"),
        ("PATCH", "/adapters/questions", "DELETE"),
        ("POST", "/base", "GET"),
        ("POST", "/health/live", "GET"),
        ("GET", "/jobs/some/cancel", "POST"),
    ];
    cases.extend(methods.map(|(method, path, allowed)| {
        let request = request_without_body(method, path);
        error_case(format!("{method} {path}"), request, 405, "method_not_allowed", method)
            .with_response_header("allow", allowed)
    }));
    check_cases(&app, cases);
}

#[test]
fn invalid_page_is_rejected_with_the_valid_range() {
    let app = ServerConfig::new().start();
    let mut cases = Vec::new();
    let mut wrong =
        |path: String, code, expected: &str| cases.push(error_case(path.clone(), get(path), 422, code, expected));
    for list in ["jobs", "datasets", "adapters"] {
        wrong(format!("/{list}?limit=0"), "invalid_query", "1 to 100");
        wrong(format!("/{list}?limit=101"), "invalid_query", "1 to 100");
        wrong(format!("/{list}?limit=ten"), "invalid_query", "limit");
        wrong(format!("/{list}?limit=-1"), "invalid_query", "limit");
        wrong(format!("/{list}?after=yesterday"), "invalid_query", "after");
        wrong(format!("/{list}?after={UNKNOWN_ID}"), "unknown_after", "start again");
        wrong(format!("/{list}?sort=name"), "invalid_query", "`limit`");
        wrong(format!("/{list}?limit=1&limit=2"), "invalid_query", "limit");
    }
    wrong("/jobs?status=done".to_string(), "invalid_query", "`succeeded`");
    check_cases(&app, cases);
}

#[test]
fn missing_or_finished_resource_is_rejected_with_its_state() {
    let app = ServerConfig::new().start();
    let job = app.train_to_success(&small_job(30, json!({"name": "questions", "hyperparameters": {"max_steps": 2}})));
    let over = job["id"].as_str().unwrap();
    let paused = app.submit_job(&small_job(60, json!({"name": "resting", "hyperparameters": {"epochs": 50_000}})));
    assert_eq!(app.post(&format!("/jobs/{paused}/pause"), &json!({})).status, 200);
    app.wait_for_status(&paused, "paused");
    let used = app.get(&format!("/jobs/{paused}")).json()["dataset_id"].as_str().unwrap().to_string();

    let mut cases = Vec::new();
    for (verb, code) in [("cancel", "job_over"), ("pause", "job_not_active"), ("resume", "job_not_paused")] {
        let asked = |id: &str| post(format!("/jobs/{id}/{verb}"), &json!({}));
        let name = |what: &str| format!("{verb} {what}");
        cases.push(error_case(name("an unknown job"), asked(UNKNOWN_ID), 404, "job_not_found", "GET /jobs"));
        cases.push(error_case(name("no id"), asked("the-first"), 404, "not_found", "UUID"));
        cases.push(error_case(name("a finished job"), asked(over), 409, code, "succeeded"));
    }
    let events = format!("/jobs/{over}/events");
    cases.extend([
        error_case("an unknown job", get(format!("/jobs/{UNKNOWN_ID}")), 404, "job_not_found", "GET /jobs"),
        error_case("a job without id", get("/jobs/the-first"), 404, "not_found", "UUID"),
        error_case(
            "events of an unknown job",
            get(format!("/jobs/{UNKNOWN_ID}/events")),
            404,
            "job_not_found",
            UNKNOWN_ID,
        ),
        error_case("events after text", get(format!("{events}?after=start")), 422, "invalid_query", "after"),
        error_case(
            "a wrong last event",
            get(&events).with_header("last-event-id", "x"),
            422,
            "invalid_header",
            "sequence number",
        ),
        error_case(
            "an unknown dataset",
            get(format!("/datasets/{UNKNOWN_ID}")),
            404,
            "dataset_not_found",
            "GET /datasets",
        ),
        error_case(
            "delete no dataset",
            delete(format!("/datasets/{UNKNOWN_ID}")),
            404,
            "dataset_not_found",
            UNKNOWN_ID,
        ),
        error_case(
            "delete a dataset in use",
            delete(format!("/datasets/{used}")),
            409,
            "dataset_in_use",
            "cancel the job",
        ),
        error_case(
            "validate perhaps",
            bytes("/jobs?validate_only=perhaps", "application/json", "{}"),
            422,
            "invalid_query",
            "validate_only",
        ),
        error_case(
            "an unknown parameter",
            bytes("/jobs?dry=true", "application/json", "{}"),
            422,
            "invalid_query",
            "`validate_only`",
        ),
    ]);
    check_cases(&app, cases);
}

/// Inserts two adapters with one name whose versions share a prefix.
fn create_ambiguous_adapters(app: &ServerProcess) {
    let url = espalier::store::sqlite_url(&app.setup.data_dir().join("espalier.db"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = espalier::store::connect(&url).await.unwrap();
        for digits in ["abcdef0123", "abcdef0124"] {
            store.add_adapter(new_adapter(Some("twins"), digits)).await.unwrap();
        }
    });
}

#[test]
fn unknown_or_ambiguous_adapter_reference_is_rejected() {
    let app = ServerConfig::new().start();
    create_ambiguous_adapters(&app);
    let references = [
        ("nobody", 404, "adapter_not_found", "GET /adapters"),
        (UNKNOWN_ID, 404, "adapter_not_found", UNKNOWN_ID),
        ("twins@xyz", 422, "invalid_version", "8 to 64"),
        ("twins@abcdef0", 422, "invalid_version", "8 to 64"),
        ("twins@", 422, "invalid_version", "8 to 64"),
        ("twins@abcdef01", 422, "ambiguous_version", "more digits"),
        ("twins@99999999", 404, "adapter_not_found", "begins with 99999999"),
        ("nobody@abcdef0123", 404, "adapter_not_found", "\"nobody\""),
        ("a%00b", 404, "adapter_not_found", "GET /adapters"),
        ("%2e%2e%2fadapters", 404, "adapter_not_found", "GET /adapters"),
    ];
    let mut cases: Vec<ErrorCase> = Vec::new();
    for (reference, status, code, expected) in references {
        let mut add = |name: &str, request| {
            cases.push(error_case(format!("{name} {reference}"), request, status, code, expected));
        };
        add("get", get(format!("/adapters/{reference}")));
        add("download", get(format!("/adapters/{reference}/download")));
        add("delete", delete(format!("/adapters/{reference}")));
        add("predict with", post(format!("/predict?adapter={reference}"), &json!({"inputs": ["a"]})));
    }
    // The adapters have no folders, as after a disk failure.
    let lost = "twins@abcdef0123";
    let predict = post(format!("/predict?adapter={lost}"), &json!({"inputs": ["a"]}));
    cases.push(error_case("predict with a damaged one", predict, 409, "adapter_damaged", "train or import it again"));
    cases.push(error_case(
        "download a damaged one",
        get(format!("/adapters/{lost}/download")),
        409,
        "adapter_damaged",
        "",
    ));
    check_cases(&app, cases);
}

#[test]
fn unauthenticated_requests_reveal_nothing() {
    let app =
        ServerConfig::new().with_environment("ESPALIER_API_KEYS", &format!("another-key-of-some-length,{KEY}")).start();
    let answer = get("/jobs").with_header("authorization", &format!("Bearer {KEY}")).send(&app);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut cases = Vec::new();
    for path in ["/jobs", "/datasets", "/adapters/questions", "/base", "/metrics", "/jobs/the-first/events"] {
        let missing = error_case(path, get(path), 401, "key_missing", "Authorization: Bearer");
        cases.push(missing.with_response_header("www-authenticate", "Bearer"));
    }
    for value in
        ["Bearer wrong-key-of-some-length", "Bearer a-key-of-sufficient-lengt", "Bearer a-key-of-sufficient-lengthh"]
    {
        let wrong =
            error_case(value, get("/jobs").with_header("authorization", value), 401, "key_wrong", "ask its operator");
        cases.push(wrong.with_response_header("www-authenticate", "invalid_token"));
    }
    for value in ["Basic YTpi", "Bearer", KEY] {
        cases.push(error_case(
            value,
            get("/jobs").with_header("authorization", value),
            401,
            "key_missing",
            "Bearer <key>",
        ));
    }
    for path in ["/jobs", "/predict", "/adapters", "/datasets"] {
        cases.push(error_case(
            format!("post {path}"),
            bytes(path, "application/json", "{"),
            401,
            "key_missing",
            "Bearer",
        ));
    }
    check_cases(&app, cases);
    for open in ["/health/live", "/health/ready", "/openapi.yaml", "/docs/"] {
        assert_eq!(get(open).send(&app).status, 200, "{open}");
    }
    let file = fs::read_dir(app.setup.data_dir().join("datasets")).unwrap().count();
    assert_eq!(file, 0);
    assert!(!app.log().iter().any(|line| line.contains(KEY)), "the key is in the log");
}
