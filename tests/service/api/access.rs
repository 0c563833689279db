//! Keys, limits, shared adapters, usage and the audit log over HTTP.

use crate::api::keyed_client::{KeyedClient, OWNER_SCOPES, server_with_owners};
use crate::api::server_process::{HttpResponse, ServerConfig, TIMEOUT, small_job};
use crate::support::database::Database;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn code(answer: &HttpResponse) -> String {
    answer.json()["code"].as_str().unwrap_or_default().to_string()
}

/// Job of one epoch.
fn short_job(name: &str) -> Value {
    small_job(30, json!({"name": name, "hyperparameters": {"epochs": 1}}))
}

fn wait_until(what: &str, mut is_reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_reached() {
        assert!(started.elapsed() < TIMEOUT, "{what} was not reached");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_key_is_shown_once_and_ends_when_it_is_revoked() {
    let app = server_with_owners().start();
    let admin = KeyedClient::admin(&app);
    let answer = admin.post("/keys", &json!({"owner": "acme", "name": "tests", "scopes": ["predict"]}));
    let created = answer.json();
    let id = created["id"].as_str().unwrap();
    assert_eq!((answer.status, answer.header("location")), (201, Some(format!("/keys/{id}").as_str())));
    let key = created["key"].as_str().unwrap();
    assert!(key.starts_with("esp_") && key.starts_with(created["prefix"].as_str().unwrap()), "{key}");
    for path in ["/keys", &format!("/keys/{id}"), "/audit", "/owners", "/usage?owner=*"] {
        assert!(!admin.get(path).text().contains(key), "{path} shows the key");
    }
    let client = KeyedClient::new(&app, key);
    let current = client.get("/keys/current").json();
    assert_eq!((&current["owner"], &current["credential"]), (&json!("acme"), &json!(format!("key:{id}"))));
    assert_eq!(client.post("/predict", &json!({"inputs": ["a"]})).status, 200);
    assert_eq!(admin.delete(&format!("/keys/{id}")).status, 204);
    assert_eq!(code(&client.post("/predict", &json!({"inputs": ["a"]}))), "key_wrong");
    assert_eq!(admin.get(&format!("/keys/{id}")).json()["status"], "revoked");
    assert_eq!(code(&admin.post(&format!("/keys/{id}/rotate"), &json!({}))), "key_revoked");
}

#[test]
fn a_rotated_key_is_valid_for_the_grace_period() {
    let app = server_with_owners().start();
    let admin = KeyedClient::admin(&app);
    let old = admin.post("/keys", &json!({"owner": "acme", "name": "tests", "scopes": ["predict"]})).json();
    let rotate = format!("/keys/{}/rotate", old["id"].as_str().unwrap());
    let new = admin.post(&rotate, &json!({"grace_seconds": 3600})).json();
    let client = |key: &Value| KeyedClient::new(&app, key["key"].as_str().unwrap());
    assert_eq!((client(&old).get("/base").status, client(&new).get("/base").status), (200, 200));
    assert_eq!((&new["owner"], &new["scopes"]), (&json!("acme"), &json!(["predict"])));
    let newest = admin.post(&rotate, &json!({})).json();
    assert_eq!((client(&old).get("/base").status, client(&newest).get("/base").status), (401, 200));
}

#[test]
fn wrong_keys_are_refused_by_field() {
    let app = server_with_owners().start();
    let admin = KeyedClient::admin(&app);
    let valid = json!({"owner": "acme", "name": "tests", "scopes": ["predict"]});
    for (field, value, pointer) in [
        ("owner", json!("Not A Name"), "/owner"),
        ("name", json!(""), "/name"),
        ("name", json!("two\nlines"), "/name"),
        ("scopes", json!([]), "/scopes"),
        ("scopes", json!(["fly"]), "/scopes/0"),
        ("adapters", json!([]), "/adapters"),
        ("limits", json!({"requests_per_minute": 0}), "/limits/requests_per_minute"),
        ("limits", json!({"rps": 1}), "/limits/rps"),
        ("expires_at", json!("2001-01-01T00:00:00Z"), "/expires_at"),
        ("admin", json!(true), "/admin"),
    ] {
        let mut request = valid.clone();
        request[field] = value;
        let answer = admin.post("/keys", &request);
        assert_eq!(
            (answer.status, &answer.json()["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn a_server_without_keys_creates_none() {
    let app = ServerConfig::new().start();
    let answer = app.post("/keys", &json!({"owner": "acme", "name": "tests", "scopes": ["predict"]}));
    assert_eq!((answer.status, code(&answer).as_str()), (409, "no_admin_key"));
    assert_eq!(app.get("/keys/current").json()["credential"], "none");
}

#[test]
fn keys_of_one_process_are_known_to_another() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Database::postgres());
    let config = || server_with_owners().with_database(database.url().to_string());
    let (one, other) = (config().start(), config().with_arguments(&["--access-refresh-interval", "100ms"]).start());
    let admin = KeyedClient::admin(&one);
    let created = admin.post("/keys", &json!({"owner": "acme", "name": "tests", "scopes": ["predict"]})).json();
    let client = KeyedClient::new(&other, created["key"].as_str().unwrap());
    assert_eq!(client.get("/base").status, 200, "an unknown key is looked up");
    admin.delete(&format!("/keys/{}", created["id"].as_str().unwrap()));
    wait_until("the revocation", || client.get("/base").status == 401);
    drop((one, other));
    runtime.block_on(database.drop_database());
}

#[test]
fn a_key_may_be_restricted_to_adapters_by_name() {
    let app = server_with_owners().start();
    let owner = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    let (support, sales) = (owner.train(&short_job("support-intents")), owner.train(&short_job("sales-intents")));
    let request = json!({"owner": "acme", "name": "tests", "scopes": OWNER_SCOPES, "adapters": ["support-*"]});
    let client = KeyedClient::new(&app, &KeyedClient::admin(&app).create_key(&request));
    let predict = |adapter: &str| client.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": ["a"]}));
    let id = |job: &Value| job["adapter_id"].as_str().unwrap().to_string();
    for adapter in ["support-intents", &id(&support)] {
        assert_eq!(predict(adapter).status, 200, "{adapter}");
        assert_eq!(client.get(&format!("/adapters/{adapter}")).status, 200, "{adapter}");
    }
    for adapter in ["sales-intents", &id(&sales)] {
        assert_eq!(code(&predict(adapter)), "adapter_not_found", "{adapter}");
        for path in ["", "/download", "/lineage", "/shares"] {
            assert_eq!(client.get(&format!("/adapters/{adapter}{path}")).status, 404, "{adapter}{path}");
        }
        assert_eq!(client.delete(&format!("/adapters/{adapter}")).status, 404, "{adapter}");
        assert_eq!(client.post(&format!("/adapters/{adapter}/activate"), &json!({})).status, 404, "{adapter}");
        assert_eq!(client.post("/v1/embeddings", &json!({"model": adapter, "input": "a"})).status, 404, "{adapter}");
        assert_eq!(client.get(&format!("/v1/models/{adapter}")).status, 404, "{adapter}");
    }
    for list in ["/adapters", "/v1/models"] {
        let text = client.get(list).text();
        assert!(text.contains("support-intents") && !text.contains("sales-intents"), "{list}: {text}");
    }
    for name in [json!("sales-more"), Value::Null] {
        let answer = client.post("/jobs", &small_job(30, json!({"name": name})));
        assert_eq!((answer.status, &answer.json()["errors"][0]["pointer"]), (422, &json!("/name")));
    }
    let from = client.post("/jobs", &small_job(30, json!({"name": "support-b", "from_adapter": "sales-intents"})));
    assert_eq!((from.status, code(&from).as_str()), (404, "adapter_not_found"));
    assert_eq!(owner.get("/adapters/sales-intents").status, 200, "nothing was deleted");
}

#[test]
fn an_adapter_is_shared_read_only() {
    let app = server_with_owners().start();
    let acme = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    let globex = KeyedClient::with_new_key(&app, "globex", &OWNER_SCOPES);
    let initech = KeyedClient::with_new_key(&app, "initech", &OWNER_SCOPES);
    let job = acme.train(&short_job("intents"));
    let id = job["adapter_id"].as_str().unwrap();
    let inputs = json!({"inputs": ["where is my card"]});
    let shares = |client: &KeyedClient, owners: Value| client.put(&format!("/adapters/{id}/shares"), &owners);
    assert_eq!(shares(&acme, json!({"owners": ["globex"]})).json(), json!({"owners": ["globex"], "everyone": false}));
    let expected = acme.post("/predict?adapter=intents", &inputs).json()["predictions"].clone();
    for adapter in [id, "acme/intents"] {
        let answer = globex.post(&format!("/predict?adapter={adapter}"), &inputs);
        assert_eq!((answer.status, &answer.json()["predictions"]), (200, &expected), "{adapter}");
        assert_eq!(initech.post(&format!("/predict?adapter={adapter}"), &inputs).status, 404, "{adapter}");
    }
    assert_eq!(globex.get(&format!("/adapters/{id}/download")).status, 200);
    let shared = globex.get("/shared-adapters").json()["data"].clone();
    assert_eq!((&shared[0]["owner"], &shared[0]["id"]), (&json!("acme"), &json!(id)));
    assert_eq!(globex.get("/adapters").json()["data"], json!([]));
    let lineage = globex.get(&format!("/adapters/{id}/lineage")).json();
    assert_eq!((&lineage["data"][0]["job"], &lineage["data"][0]["datasets"]), (&Value::Null, &json!([])));
    assert_eq!(globex.delete(&format!("/adapters/{id}")).status, 404);
    assert_eq!(globex.post(&format!("/adapters/{id}/activate"), &json!({})).status, 404);
    assert_eq!(shares(&globex, json!({"everyone": true})).status, 404);
    let from = globex.post("/jobs", &small_job(30, json!({"from_adapter": id})));
    assert_eq!((from.status, code(&from).as_str()), (422, "adapter_of_another_owner"));
    let usage_of = |client: &KeyedClient| client.get("/usage").text();
    wait_until("the usage", || usage_of(&globex).contains("acme/intents"));
    assert_eq!(shares(&acme, json!({"owners": []})).status, 200);
    assert_eq!(globex.post("/predict?adapter=acme/intents", &inputs).status, 404);
    assert_eq!(shares(&acme, json!({"everyone": true})).status, 200);
    assert_eq!(initech.post("/predict?adapter=acme/intents", &inputs).status, 200);
}

#[test]
fn the_lineage_of_an_adapter_goes_back_to_its_first_dataset() {
    let app = server_with_owners().start();
    let acme = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    let first = acme.train(&short_job("intents"));
    let second = acme.train(&small_job(
        30,
        json!({"name": "intents", "from_adapter": "intents", "hyperparameters": {"epochs": 1, "seed": 5}}),
    ));
    let lineage = acme.get("/adapters/intents/lineage").json()["data"].clone();
    assert_eq!(lineage.as_array().unwrap().len(), 2, "{lineage:#}");
    assert_eq!(lineage[0]["parent"], first["adapter"]["version"]);
    for (entry, job) in [(&lineage[0], &second), (&lineage[1], &first)] {
        assert_eq!((&entry["version"], &entry["job"]["id"]), (&job["adapter"]["version"], &job["id"]));
        assert_eq!(entry["datasets"][0]["hash"], job["dataset"]["hash"]);
        assert_eq!(entry["created_by"], acme.get("/keys/current").json()["credential"]);
    }
    acme.delete(&format!("/adapters/{}", first["adapter_id"].as_str().unwrap()));
    let lineage = acme.get("/adapters/intents/lineage").json()["data"].clone();
    assert_eq!((&lineage[1]["adapter"], &lineage[1]["version"]), (&Value::Null, &first["adapter"]["version"]));
}

#[test]
fn requests_beyond_a_limit_get_429_with_the_headers_of_openai() {
    let app = server_with_owners().start();
    let admin = KeyedClient::admin(&app);
    let key = json!({"owner": "acme", "name": "tests", "scopes": OWNER_SCOPES, "limits": {"requests_per_minute": 3}});
    let client = KeyedClient::new(&app, &admin.create_key(&key));
    let predict = |client: &KeyedClient| client.post("/predict", &json!({"inputs": ["where is my card"]}));
    let remaining: Vec<String> = (0..3)
        .map(|_| predict(&client).header("x-ratelimit-remaining-requests").unwrap_or_default().to_string())
        .collect();
    assert_eq!(remaining, ["2", "1", "0"]);
    let refused = predict(&client);
    assert_eq!((refused.status, code(&refused).as_str()), (429, "requests_per_minute_exceeded"));
    assert_eq!(refused.header("x-ratelimit-limit-requests"), Some("3"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(client.get("/jobs").status, 200, "reads are not counted");
    let refused = client.post("/v1/embeddings", &json!({"model": "tiny-bert", "input": "a"}));
    assert_eq!((refused.status, refused.json()["error"]["type"].as_str()), (429, Some("rate_limit_error")));

    // Limits of the owner hold for all its keys, and apply at once.
    let other = KeyedClient::with_new_key(&app, "globex", &OWNER_SCOPES);
    assert_eq!(admin.put("/owners/globex", &json!({"tokens_per_minute": 5})).status, 200);
    assert_eq!(predict(&other).status, 200, "the last request goes into debt");
    let refused = predict(&KeyedClient::with_new_key(&app, "globex", &OWNER_SCOPES));
    assert_eq!((refused.status, code(&refused).as_str()), (429, "tokens_per_minute_exceeded"));
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("0"));
    assert_eq!(admin.put("/owners/globex", &json!({})).status, 200);
    assert_eq!(predict(&other).status, 200);
}

#[test]
fn an_event_stream_counts_as_a_request_until_it_ends() {
    let app = server_with_owners().start();
    let admin = KeyedClient::admin(&app);
    let client = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    let job = client.post("/jobs", &small_job(60, json!({"hyperparameters": {"epochs": 50_000}}))).json();
    let path = format!("/jobs/{}/events", job["id"].as_str().unwrap());
    assert_eq!(admin.put("/owners/acme", &json!({"concurrent_requests": 1})).status, 200);
    let authorization = format!("Bearer {}", client.key);
    let stream =
        app.agent().get(app.url(&path)).header("accept", "text/event-stream").header("authorization", authorization);
    let stream = stream.call().unwrap();
    let refused = client.get("/jobs");
    assert_eq!((refused.status, code(&refused).as_str()), (429, "concurrent_requests_exceeded"));
    drop(stream);
    wait_until("the end of the stream", || client.get("/jobs").status == 200);
}

#[test]
fn quotas_hold_for_jobs_datasets_and_adapters() {
    let app = server_with_owners().start();
    let admin = KeyedClient::admin(&app);
    let client = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    let limit = |limits: Value| assert_eq!(admin.put("/owners/acme", &limits).status, 200);
    limit(json!({"queued_jobs": 0}));
    let refused = client.post("/jobs", &short_job("intents"));
    assert_eq!((refused.status, code(&refused).as_str()), (429, "queued_jobs_exceeded"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(client.get("/datasets").json()["data"], json!([]), "the dataset of a refused job is not kept");
    limit(json!({"dataset_rows": 29}));
    assert_eq!(code(&client.post("/jobs", &short_job("intents"))), "dataset_rows_exceeded");
    limit(json!({"dataset_bytes": 10}));
    assert_eq!(code(&client.post("/jobs", &short_job("intents"))), "dataset_bytes_exceeded");
    limit(json!({"adapter_bytes": 1}));
    client.train(&short_job("intents"));
    assert_eq!(code(&client.post("/jobs", &short_job("intents"))), "adapter_bytes_exceeded");
    let storage = admin.get("/owners/acme").json()["storage"].clone();
    assert_eq!(
        (&storage["datasets"], &storage["dataset_rows"], &storage["adapters"]),
        (&json!(1), &json!(30), &json!(1))
    );
    let owners = admin.get("/owners").json();
    assert!(owners["data"].as_array().unwrap().iter().any(|owner| owner["name"] == "acme"), "{owners:#}");
}

#[test]
fn usage_is_counted_by_owner_adapter_and_day_and_survives_a_restart() {
    let config = server_with_owners();
    let mut app = config.start();
    let client = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    client.train(&short_job("intents"));
    for adapter in ["", "?adapter=intents", "?adapter=intents"] {
        let answer = client.post(&format!("/predict{adapter}"), &json!({"inputs": ["where is my card", "why"]}));
        assert_eq!(answer.status, 200);
    }
    let (status, _) = app.terminate();
    assert!(status.success(), "{status}");
    let app = config.start();
    let client = KeyedClient::new(&app, &client.key);
    let rows = client.get("/usage").json()["data"].clone();
    assert_eq!((&rows[0]["adapter"], &rows[0]["requests"]), (&Value::Null, &json!(1)), "{rows:#}");
    assert_eq!((&rows[1]["adapter"], &rows[1]["requests"]), (&json!("intents"), &json!(2)), "{rows:#}");
    let tokens = |row: &Value| row["input_tokens"].as_u64().unwrap();
    assert!(tokens(&rows[0]) > 6 && tokens(&rows[1]) == 2 * tokens(&rows[0]), "{rows:#}");
    let csv = client.get("/usage?format=csv").text();
    assert!(csv.starts_with("day,owner,adapter,requests,input_tokens,output_tokens\n"), "{csv}");
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert_eq!(code(&client.get("/usage?owner=globex")), "scope_missing");
    let all = KeyedClient::admin(&app).get("/usage?owner=*").json();
    assert_eq!(all["data"], rows);
    assert_eq!(code(&client.get("/usage?since=2026-02-01&until=2026-01-01")), "invalid_query");
    let keys = KeyedClient::admin(&app).get("/keys").json();
    assert!(keys["data"][0]["last_used_at"].is_string(), "{keys:#}");
}

#[test]
fn changes_are_in_the_audit_log_and_reads_are_not() {
    let app = server_with_owners().start();
    let admin = KeyedClient::admin(&app);
    let client = KeyedClient::with_new_key(&app, "acme", &OWNER_SCOPES);
    let job = client.train(&short_job("intents"));
    client.get("/jobs");
    client.post("/predict?adapter=intents", &json!({"inputs": ["a secret text"]}));
    client.delete("/adapters/intents");
    client.delete("/adapters/intents");
    KeyedClient::with_new_key(&app, "acme", &["predict"]).delete("/adapters/intents");
    let entries = admin.get("/audit?limit=100").json()["data"].clone();
    let rows: Vec<(&str, &str, u64)> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default();
            (text("action"), text("owner"), entry["status"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("delete_adapter", "acme", 403),
            ("create_key", "default", 201),
            ("delete_adapter", "acme", 404),
            ("delete_adapter", "acme", 204),
            ("create_job", "acme", 202),
            ("create_key", "default", 201),
        ]
    );
    let created = &entries[4];
    assert_eq!(created["object"], json!(format!("/jobs/{}", job["id"].as_str().unwrap())));
    assert_eq!(created["credential"], client.get("/keys/current").json()["credential"]);
    assert_eq!(created["client_address"], "127.0.0.1");
    assert!(created["request_id"].is_string());
    let filtered = admin.get("/audit?action=create_job&owner=acme").json();
    assert_eq!(filtered["data"], json!([created]));
    let csv = admin.get("/audit?action=create_job&format=csv").text();
    assert!(
        csv.starts_with("id,created_at,owner,credential,action,object,status,client_address,request_id\n"),
        "{csv}"
    );
    assert!(!admin.get("/audit?limit=100").text().contains("secret"));
}

#[test]
fn a_session_has_the_rights_of_its_key() {
    let app = server_with_owners().start();
    let client = KeyedClient::with_new_key(&app, "acme", &["predict"]);
    let answer = app.post("/session", &json!({"key": client.key}));
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_string();
    let get = |path: &str| HttpResponse::from_result(app.agent().get(app.url(path)).header("cookie", &cookie).call());
    assert_eq!(get("/keys/current").json()["owner"], "acme");
    assert_eq!(code(&get("/jobs")), "scope_missing");
}
