//! Two owners on one server: nothing of one is visible to the other, on every route of the OpenAPI document.

use crate::api::keyed_client::{ADMIN_KEY, KeyedClient, OWNER_SCOPES, server_with_owners};
use crate::api::server_process::{HttpResponse, ServerProcess, small_job};
use espalier::http::openapi_document;
use espalier::store::Scope;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Routes that need no key.
const PUBLIC: [&str; 11] = [
    "get /",
    "get /dashboard/{file}",
    "get /docs",
    "get /docs/",
    "get /docs/{file}",
    "get /health",
    "get /health/live",
    "get /health/ready",
    "get /openapi.yaml",
    "get /session",
    "post /session",
];

/// Signing out removes a cookie of the browser.
const SIGN_OUT: &str = "delete /session";

/// Ids that no row has.
const NO_ID: &str = "01938f40-1c2d-7b3a-9e4f-5a6b7c8d9e0f";

struct Operation {
    method: String,
    path: String,
    document: Value,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn is_public(&self) -> bool {
        PUBLIC.contains(&self.name().as_str()) || self.name() == SIGN_OUT
    }

    /// Scopes any one of which is enough; none if every key may call it.
    fn scopes(&self) -> Vec<String> {
        let requirements = self.document["security"].as_array().unwrap();
        let scopes = requirements.iter().filter_map(|requirement| requirement.get("key")).flat_map(Value::as_array);
        scopes.flatten().map(|scope| scope.as_str().unwrap().to_string()).collect()
    }

    /// Example of its JSON body, or an empty object.
    fn body(&self) -> Option<Value> {
        let content = self.document.pointer("/requestBody/content")?;
        let json = &content["application/json"];
        Some(
            [&json["example"], &json["schema"]["example"]]
                .into_iter()
                .find(|value| !value.is_null())
                .cloned()
                .or_else(|| schema_example(&json["schema"]))
                .unwrap_or_else(|| json!({})),
        )
    }
}

/// The document, which takes a while to build.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(openapi_document()).unwrap());

fn schema_example(schema: &Value) -> Option<Value> {
    let pointer = schema["$ref"].as_str()?.trim_start_matches('#').to_string();
    DOCUMENT.pointer(&pointer)?.get("example").cloned()
}

fn operations() -> Vec<Operation> {
    let paths = DOCUMENT["paths"].as_object().unwrap().iter();
    let of_path = |(path, item): (&String, &Value)| {
        let methods = ["get", "post", "put", "patch", "delete"].into_iter();
        let found = methods.filter_map(|method| Some((method.to_string(), item.get(method)?.clone())));
        found.map(|(method, document)| Operation { method, path: path.clone(), document }).collect::<Vec<_>>()
    };
    paths.flat_map(of_path).collect()
}

/// What owner `acme` has.
struct Belongings {
    job: String,
    dataset: String,
    adapter: String,
    version: String,
    file: String,
    fine_tuning_job: String,
    hash: String,
    webhook: String,
}

const SECRET_NAME: &str = "acme-secret-intents";

fn create_belongings(acme: &KeyedClient) -> Belongings {
    let job = acme.train(&small_job(30, json!({"name": SECRET_NAME, "hyperparameters": {"epochs": 1}})));
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let file = acme.get("/v1/files").json()["data"][0]["id"].clone();
    let fine_tuning_job = acme.get("/v1/fine_tuning/jobs").json()["data"][0]["id"].clone();
    let webhook = acme.send("POST", "/webhooks", Some(&json!({"url": "https://example.com/acme"})));
    Belongings {
        job: text(&job["id"]),
        dataset: text(&job["dataset_id"]),
        adapter: text(&job["adapter_id"]),
        version: text(&job["adapter"]["version"]),
        file: text(&file),
        fine_tuning_job: text(&fine_tuning_job),
        hash: text(&job["dataset"]["hash"]),
        webhook: text(&webhook.json()["id"]),
    }
}

impl Belongings {
    /// Pairs of a path with ids of these belongings, and the same path with ids that do not exist.
    fn paths(&self, path: &str) -> Vec<(String, String)> {
        let short_version = &self.version.trim_start_matches("sha256:")[..12];
        let fill = |id: &str| {
            let start = path.find('{').unwrap();
            format!("{}{id}{}", &path[..start], &path[path.find('}').unwrap() + 1..]).replace("{delivery_id}", NO_ID)
        };
        let pair = |own: &str, missing: &str| (fill(own), fill(missing));
        let adapters = || {
            vec![
                pair(&self.adapter, NO_ID),
                pair(SECRET_NAME, "acme-no-such-thing"),
                pair(&format!("{SECRET_NAME}@{short_version}"), &format!("acme-no-such-thing@{short_version}")),
                pair(&format!("acme%2F{SECRET_NAME}"), "acme%2Facme-no-such-thing"),
            ]
        };
        match path.split("/{").next().unwrap() {
            "/jobs" => vec![pair(&self.job, NO_ID)],
            "/datasets" => vec![pair(&self.dataset, NO_ID)],
            "/adapters" | "/v1/models" => adapters(),
            "/v1/files" => vec![pair(&self.file, &format!("file-{}", NO_ID.replace('-', "")))],
            "/v1/fine_tuning/jobs" => vec![pair(&self.fine_tuning_job, &format!("ftjob-{NO_ID}"))],
            "/webhooks" => vec![pair(&self.webhook, NO_ID)],
            other => panic!("{other}: add the ids of this route to the test"),
        }
    }

    /// Requests that name a belonging in the query or the body, beside the same requests with names that do not exist.
    fn references(&self) -> Vec<(&'static str, String, Value, String, Value)> {
        let adapters =
            [(self.adapter.clone(), NO_ID.to_string()), (SECRET_NAME.to_string(), "acme-no-such-thing".to_string())];
        let mut requests = Vec::new();
        for (own, missing) in adapters {
            for (path, body) in [
                ("/predict", json!({"inputs": ["where is my card"]})),
                ("/embed", json!({"inputs": ["where is my card"]})),
                ("/rerank", json!({"query": "a", "texts": ["b"]})),
                ("/similarity", json!({"inputs": {"source_sentence": "a", "sentences": ["b"]}})),
            ] {
                let with = |name: &str| format!("{path}?adapter={name}");
                requests.push(("POST", with(&own), body.clone(), with(&missing), body));
            }
            for (path, field, body) in [
                ("/v1/embeddings", "model", json!({"input": "a"})),
                ("/v1/rerank", "model", json!({"query": "a", "documents": ["b"]})),
                ("/jobs", "from_adapter", small_job(10, json!({}))),
                ("/v1/unload_lora_adapter", "lora_name", json!({})),
            ] {
                let with = |name: &str| {
                    let mut body = body.clone();
                    body[field] = json!(name);
                    body
                };
                requests.push(("POST", path.to_string(), with(&own), path.to_string(), with(&missing)));
            }
        }
        let job = |dataset: &str| json!({"dataset_id": dataset, "method": {"type": "lora"}});
        requests.push(("POST", "/jobs".to_string(), job(&self.dataset), "/jobs".to_string(), job(NO_ID)));
        let validated = |dataset: &str| small_job(10, json!({"validation": {"dataset_id": dataset}}));
        requests.push(("POST", "/jobs".to_string(), validated(&self.dataset), "/jobs".to_string(), validated(NO_ID)));
        for list in ["/jobs", "/datasets", "/adapters", "/shared-adapters"] {
            let after = |id: &str| format!("{list}?after={id}");
            for own in [&self.job, &self.dataset, &self.adapter] {
                requests.push(("GET", after(own), Value::Null, after(NO_ID), Value::Null));
            }
        }
        requests
    }

    fn markers(&self) -> [&str; 8] {
        [&self.webhook, &self.job, &self.dataset, &self.adapter, &self.version, &self.hash, SECRET_NAME, "acme"]
    }
}

/// Answer without what the request itself named and without the request id.
fn comparable(answer: &HttpResponse, path: &str, body: Option<&Value>) -> (u16, String) {
    let mut text = answer.text();
    if let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(&text) {
        fields.remove("request_id");
        if let Some(error) = fields.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("request_id");
        }
        text = Value::Object(fields).to_string();
    }
    let mut named: Vec<String> = path.split(['/', '?', '=', '&']).map(|part| part.replace("%2F", "/")).collect();
    collect_texts(body, &mut named);
    named.extend(path.split('/').filter_map(|part| part.split_once('@')).map(|(name, _)| name.to_string()));
    named.extend(named.clone().iter().filter_map(|name| name.split_once('-').map(|(_, id)| id.to_string())));
    let ids = named.iter().filter_map(|name| uuid::Uuid::parse_str(name).ok()).map(|id| id.to_string());
    named.extend(ids.collect::<Vec<_>>());
    named.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let named = named.iter().filter(|name| name.len() >= 12);
    (answer.status, named.fold(text, |text, name| text.replace(name.as_str(), "…")))
}

fn collect_texts(value: Option<&Value>, texts: &mut Vec<String>) {
    match value {
        Some(Value::String(text)) => texts.push(text.clone()),
        Some(Value::Object(fields)) => fields.values().for_each(|value| collect_texts(Some(value), texts)),
        _ => {}
    }
}

fn assert_as_missing(globex: &KeyedClient, method: &str, own: (&str, Option<&Value>), missing: (&str, Option<&Value>)) {
    let foreign = globex.send(method, own.0, own.1);
    let absent = globex.send(method, missing.0, missing.1);
    assert!((400..500).contains(&foreign.status), "{method} {}: {} {}", own.0, foreign.status, foreign.text());
    assert_eq!(
        comparable(&foreign, own.0, own.1),
        comparable(&absent, missing.0, missing.1),
        "{method} {} differs from an id that does not exist",
        own.0
    );
}

#[test]
fn ids_of_another_owner_are_as_ids_that_do_not_exist() {
    let app = server_with_owners().start();
    let acme = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    let globex = KeyedClient::with_new_key(&app, "globex", &OWNER_SCOPES);
    let belongings = create_belongings(&acme);
    let mut checked = 0;
    for operation in operations().iter().filter(|operation| !operation.is_public() && operation.path.contains('{')) {
        if operation.scopes() == ["admin"] {
            continue;
        }
        let (method, body) = (operation.method.to_uppercase(), operation.body());
        for (own, missing) in belongings.paths(&operation.path) {
            assert_as_missing(&globex, &method, (&own, body.as_ref()), (&missing, body.as_ref()));
            let status = globex.send(&method, &own, body.as_ref()).status;
            assert_eq!(status, 404, "{method} {own}");
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked}");
    for (method, own, own_body, missing, missing_body) in belongings.references() {
        let (own_body, missing_body) =
            (Some(&own_body).filter(|body| !body.is_null()), Some(&missing_body).filter(|body| !body.is_null()));
        assert_as_missing(&globex, method, (&own, own_body), (&missing, missing_body));
    }
    // What is listed, and what belongs to the server.
    for operation in operations().iter().filter(|operation| operation.method == "get" && !operation.path.contains('{'))
    {
        let answer = globex.get(&operation.path);
        let text = answer.text();
        for marker in belongings.markers() {
            assert!(operation.is_public() || !text.contains(marker), "{}: {marker} in {text}", operation.path);
        }
    }
    // Nothing was changed.
    assert_eq!(acme.get(&format!("/adapters/{}", belongings.adapter)).status, 200);
    assert_eq!(acme.get(&format!("/jobs/{}", belongings.job)).json()["status"], "succeeded");
    assert_eq!(acme.get(&format!("/datasets/{}", belongings.dataset)).status, 200);
}

#[test]
fn every_route_but_the_public_ones_needs_a_key() {
    let app = server_with_owners().start();
    let stranger = KeyedClient::new(&app, "a-key-that-does-not-exist");
    for operation in operations() {
        let path = operation.path.replace("{", "").replace("}", "");
        let method = operation.method.to_uppercase();
        let body = operation.body();
        let without_key = send_without_key(&app, &method, &path, body.as_ref());
        if operation.is_public() {
            assert_ne!(without_key.status, 403, "{method} {path}");
            continue;
        }
        assert_eq!(without_key.status, 401, "{method} {path}: {}", without_key.text());
        let wrong = stranger.send(&method, &path, body.as_ref());
        assert_eq!((wrong.status, code(&wrong).as_str()), (401, "key_wrong"), "{method} {path}");
    }
}

fn send_without_key(app: &ServerProcess, method: &str, path: &str, body: Option<&Value>) -> HttpResponse {
    let request = ureq::http::Request::builder().method(method).uri(app.url(path));
    match body {
        Some(body) => {
            let request = request.header("content-type", "application/json").body(body.to_string()).unwrap();
            HttpResponse::from_result(app.agent().run(request))
        }
        None => HttpResponse::from_result(app.agent().run(request.body(()).unwrap())),
    }
}

fn code(answer: &HttpResponse) -> String {
    let body: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
    [&body["code"], &body["error"]["code"]].into_iter().find_map(Value::as_str).unwrap_or_default().to_string()
}

#[test]
fn a_scope_allows_its_routes_and_no_others() {
    let app = server_with_owners().start();
    let clients: Vec<(Scope, KeyedClient)> = Scope::ALL
        .into_iter()
        .map(|scope| (scope, KeyedClient::with_new_key(&app, "acme", &[scope.as_str()])))
        .collect();
    for operation in operations().iter().filter(|operation| !operation.is_public()) {
        let scopes = operation.scopes();
        let method = operation.method.to_uppercase();
        // Ids that do not exist, and a body that no route accepts: nothing changes where the call is allowed.
        let path = operation.path.replace("{owner}", "nobody").replace("{", "").replace("}", "");
        let body = (method != "GET" && method != "DELETE").then(|| json!({"no_such_field": 1}));
        for (scope, client) in &clients {
            let answer = client.send(&method, &path, body.as_ref());
            let is_allowed = scopes.is_empty() || scopes.iter().any(|name| name == scope.as_str());
            let code = code(&answer);
            assert_eq!(
                code == "scope_missing",
                !is_allowed,
                "{} with {method} {path}: {}",
                scope.as_str(),
                answer.text()
            );
            assert_eq!(answer.status == 403, !is_allowed, "{} with {method} {path}: {}", scope.as_str(), answer.text());
            assert!(answer.status < 500, "{method} {path}: {}", answer.text());
        }
    }
}

#[test]
fn every_route_has_its_scopes_in_the_table() {
    for operation in operations().iter().filter(|operation| !operation.is_public()) {
        let is_listed = espalier::http::RoutePolicy::is_listed(&operation.method.to_uppercase(), &operation.path);
        assert!(is_listed, "{}: add it to src/http/auth/route_scopes.rs", operation.name());
    }
}

#[test]
fn keys_of_the_settings_are_no_administrators() {
    let key = "one-key-of-the-settings";
    let app = server_with_owners().with_arguments(&["--api-keys", key]).start();
    let (user, admin) = (KeyedClient::new(&app, key), KeyedClient::admin(&app));
    for path in ["/keys", "/owners", "/audit"] {
        assert_eq!((user.get(path).status, admin.get(path).status), (403, 200), "{path}");
    }
    for path in ["/jobs", "/adapters", "/metrics", "/usage"] {
        assert_eq!(user.get(path).status, 200, "{path}");
    }
    assert_eq!(admin.key, ADMIN_KEY);
}
