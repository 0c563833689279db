//! Load test: many clients predict with many adapters while a job trains and adapters are published and deleted.

use crate::api::load_clients::{ExpectedOutputs, Inputs, LoadClient, PredictResult};
use crate::api::server_process::{ServerConfig, ServerProcess};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, RwLock};

const ADAPTERS: usize = 16;
const CLIENTS: usize = 32;
/// Responses between two changes of the publisher.
const RESPONSES_PER_CHANGE: usize = 25;

fn requests_per_client() -> usize {
    if std::env::var_os("ESPALIER_SOAK").is_some() { 400 } else { 40 }
}

/// Short job whose method, pooling and number of labels depend on its index.
fn job(name: Option<&str>, number: usize) -> Value {
    let labels = 2 + number % 5;
    let example = |index: usize| {
        let label = index % labels;
        json!({"text": format!("{} card {index} of kind {label}", ["lost", "new", "my"][index % 3]), "label": format!("{number}-{label}")})
    };
    let method = match number % 4 {
        0 => json!({"type": "lora"}),
        1 => json!({"type": "head"}),
        2 => json!({"type": "lora", "rank": 4, "target_modules": "all-linear", "rslora": true}),
        _ => json!({"type": "lora", "rank": 2, "target_modules": ["value"], "layers": {"top": 1}}),
    };
    let pooling = if number.is_multiple_of(3) { "cls" } else { "mean" };
    json!({
        "name": name, "examples": (0..30).map(example).collect::<Vec<_>>(), "method": method,
        "task": {"type": "sequence_classification", "pooling": pooling},
        "hyperparameters": {"epochs": 2, "learning_rate": 0.05, "seed": number},
    })
}

/// Adapter that exists during the whole test: its reference and version.
struct PermanentAdapter {
    references: [String; 3],
    version: String,
}

fn train_permanent_adapter(app: &ServerProcess, number: usize) -> PermanentAdapter {
    let name = format!("fixed-{number}");
    let job = app.train_to_success(&job(Some(&name), number));
    let (id, version) = (text(&job["adapter_id"]), text(&job["adapter"]["version"]));
    let digits = version.trim_start_matches("sha256:")[..12].to_string();
    PermanentAdapter { references: [id, name.clone(), format!("{name}@{digits}")], version }
}

/// Zip of an adapter that is not on the server.
struct ExportedAdapter {
    zip: Vec<u8>,
    version: String,
}

/// Trains an adapter, records its responses, downloads it and deletes it.
fn train_and_export(app: &ServerProcess, oracle: &mut ExpectedOutputs, number: usize) -> ExportedAdapter {
    let job = app.train_to_success(&job(None, number));
    let (id, version) = (text(&job["adapter_id"]), text(&job["adapter"]["version"]));
    oracle.record(&version, Some(&id));
    let zip = app.get(&format!("/adapters/{id}/download")).body;
    assert_eq!(app.delete(&format!("/adapters/{id}")).status, 204);
    ExportedAdapter { zip, version }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

/// State shared by clients and the publisher.
struct SharedState {
    fixed: Vec<PermanentAdapter>,
    expected: ExpectedOutputs,
    /// Versions that the name `moving` refers to over time; the last one may not be published yet.
    repoint_history: Mutex<Vec<String>>,
    /// Number of completed moves.
    repoint_count: AtomicUsize,
    /// Id and version of an adapter that may be deleted at any time.
    temporary_adapter: RwLock<(String, String)>,
}

impl SharedState {
    /// Sends requests to randomly chosen adapters until the end of the test.
    fn run_client(&self, client: &mut LoadClient, answered: &SyncSender<()>) {
        for _ in 0..requests_per_client() {
            let inputs = client.random_inputs();
            match client.random_below(ADAPTERS + 3) {
                number if number < ADAPTERS => {
                    let PermanentAdapter { references: ways, version } = &self.fixed[number];
                    let way = &ways[client.random_below(ways.len())];
                    self.expected.assert_matches(&client.predict(Some(way), &inputs).unwrap(), &inputs, version);
                }
                ADAPTERS => self.expected.assert_matches(&client.predict(None, &inputs).unwrap(), &inputs, "base"),
                number if number == ADAPTERS + 1 => self.predict_by_repointed_name(client, &inputs),
                _ => self.predict_by_temporary_adapter(client, &inputs),
            }
            // Fails after the publisher has finished.
            let _ = answered.try_send(());
        }
    }

    /// Checks that the name refers to the version of the last move, or of the move in progress.
    fn predict_by_repointed_name(&self, client: &LoadClient, inputs: &Inputs) {
        let first = self.repoint_count.load(Ordering::SeqCst) - 1;
        let answered = client.predict(Some("moving"), inputs).expect("the name always points to an adapter");
        let possible = self.repoint_history.lock().unwrap()[first..].to_vec();
        assert!(possible.contains(&answered.version), "{} is none of {possible:?}", answered.version);
        self.expected.assert_matches(&answered, inputs, &answered.version);
    }

    fn predict_by_temporary_adapter(&self, client: &LoadClient, inputs: &Inputs) {
        let (id, version) = self.temporary_adapter.read().unwrap().clone();
        // `None` if it is already deleted.
        if let Some(answered) = client.predict(Some(&id), inputs) {
            self.expected.assert_matches(&answered, inputs, &version);
        }
    }

    /// Publishes adapters by upload and training, and deletes them, until the clients finish.
    fn run_publisher(&self, app: &Publisher, packed: &[ExportedAdapter; 4], answers: &Receiver<()>) -> usize {
        let [one, other, passing, next] = packed;
        let mut before = app.upload("/adapters?name=moving", other);
        let mut rounds = 0;
        while (0..RESPONSES_PER_CHANGE).all(|_| answers.recv().is_ok()) {
            let (to, id) = match rounds % 2 {
                0 => (one, passing),
                _ => (other, next),
            };
            self.repoint_history.lock().unwrap().push(to.version.clone());
            let now = app.upload("/adapters?name=moving", to);
            self.repoint_count.fetch_add(1, Ordering::SeqCst);
            app.delete(&std::mem::replace(&mut before, now));

            let fresh = app.upload("/adapters", id);
            let gone = std::mem::replace(&mut *self.temporary_adapter.write().unwrap(), (fresh, id.version.clone()));
            app.delete(&gone.0);
            if rounds % 4 == 0 {
                app.train_and_delete(rounds);
            }
            rounds += 1;
        }
        rounds
    }
}

/// Publisher's connection to the server.
struct Publisher<'a> {
    client: &'a LoadClient,
}

impl Publisher<'_> {
    /// Uploads an adapter and returns its id.
    fn upload(&self, path: &str, packed: &ExportedAdapter) -> String {
        let (status, adapter) = self.client.post(path, "application/zip", &packed.zip);
        assert_eq!((status, &adapter["version"]), (201, &json!(packed.version)), "{adapter:#}");
        text(&adapter["id"])
    }

    /// Deletes an adapter; later requests get 404.
    fn delete(&self, id: &str) {
        assert_eq!(self.client.delete(&format!("/adapters/{id}")), 204);
        assert!(self.client.predict(Some(id), &vec![0]).is_none());
    }

    fn train_and_delete(&self, number: usize) {
        let job = self.client.train_to_success(&job(None, 100 + number));
        let adapter = text(&job["adapter_id"]);
        assert!(self.client.predict(Some(&adapter), &vec![0]).is_some());
        self.delete(&adapter);
    }
}

#[test]
fn mixed_batches_equal_single_requests_while_adapters_change() {
    let flags =
        ["--slots", "2", "--adapter-cache-size", "96KiB", "--max-batch-delay", "10ms", "--max-batch-tokens", "4096"];
    let app = ServerConfig::new().with_arguments(&flags).start();
    let mut oracle = ExpectedOutputs::new(&app);
    let fixed: Vec<PermanentAdapter> = (0..ADAPTERS).map(|number| train_permanent_adapter(&app, number)).collect();
    fixed.iter().for_each(|fixed| oracle.record(&fixed.version, Some(&fixed.references[0])));
    oracle.record("base", None);
    let packed = [20, 21, 22, 23].map(|number| train_and_export(&app, &mut oracle, number));
    let first = Publisher { client: &LoadClient::new(&app, 0) }.upload("/adapters?name=moving", &packed[1]);
    let passing = Publisher { client: &LoadClient::new(&app, 0) }.upload("/adapters", &packed[3]);
    let scene = SharedState {
        fixed,
        expected: oracle,
        repoint_history: Mutex::new(vec![packed[1].version.clone()]),
        repoint_count: AtomicUsize::new(1),
        temporary_adapter: RwLock::new((passing, packed[3].version.clone())),
    };

    let mut long = job(Some("long"), 30);
    long["hyperparameters"]["epochs"] = json!(100_000);
    let long = app.submit_job(&long);
    app.wait_for_progress(&long);
    let (before, step) = (counters(&app), job_step(&app, &long));
    let rounds = run_clients_and_publisher(&app, &scene, &packed);
    let now = app.get(&format!("/jobs/{long}")).json();
    assert_eq!((&now["status"], &now["attempt"]), (&json!("running"), &json!(1)));
    println!("the long job did {} steps meanwhile", now["progress"]["step"].as_u64().unwrap() - step);
    assert_eq!(app.post(&format!("/jobs/{long}/cancel"), &json!({})).status, 200);
    app.wait_for_job(&long);

    let after = counters(&app);
    let of = |name: &str| (after[name] - before.get(name).unwrap_or(&0.0)).max(0.0);
    let requests = (CLIENTS * requests_per_client()) as f64;
    let (batches, inputs) = (of("espalier_serving_batches_total"), of("espalier_serving_batched_inputs_total"));
    let (requests_each, inputs_each) = (requests / batches, inputs / batches);
    println!("{requests} requests in {batches} batches: {requests_each:.1} requests, {inputs_each:.1} inputs each");
    println!("{rounds} rounds of publishing and deleting, {} evictions", of("espalier_adapter_cache_evictions_total"));
    assert!(requests_each > 2.0, "the batches held one request each, so nothing was mixed");
    assert!(of("espalier_adapter_cache_evictions_total") > 0.0 && rounds > 3);
    let text = app.get("/metrics").text();
    assert!(!text.contains("status=\"5"), "{text}");
    assert_eq!(app.delete(&format!("/adapters/{first}")).status, 204);
}

fn run_clients_and_publisher(app: &ServerProcess, scene: &SharedState, packed: &[ExportedAdapter; 4]) -> usize {
    let clients: Vec<LoadClient> = (0..=CLIENTS).map(|number| LoadClient::new(app, number as u64)).collect();
    let (answered, answers) = sync_channel(CLIENTS * requests_per_client());
    std::thread::scope(|scope| {
        let mut clients = clients.into_iter();
        let publishing = clients.next().unwrap();
        for mut client in clients {
            let answered = answered.clone();
            scope.spawn(move || scene.run_client(&mut client, &answered));
        }
        drop(answered);
        scope.spawn(move || scene.run_publisher(&Publisher { client: &publishing }, packed, &answers)).join().unwrap()
    })
}

fn job_step(app: &ServerProcess, job: &str) -> u64 {
    app.get(&format!("/jobs/{job}")).json()["progress"]["step"].as_u64().unwrap_or(0)
}

/// Metrics without labels.
fn counters(app: &ServerProcess) -> BTreeMap<String, f64> {
    let text = app.get("/metrics").text();
    let line =
        |line: &str| line.split_once(' ').and_then(|(name, value)| Some((name.to_string(), value.parse().ok()?)));
    text.lines().filter_map(line).collect()
}

#[test]
fn in_flight_request_keeps_its_deleted_adapter() {
    const INPUTS: f64 = 8192.0;
    let most = ["--max-inputs", "8192", "--max-queued-inputs", "8192"];
    let app = ServerConfig::new()
        .with_arguments(&["--serving-threads", "1", "--max-batch-tokens", "16"])
        .with_arguments(&most)
        .start();
    let version = text(&app.train_to_success(&job(Some("questions"), 0))["adapter"]["version"]);
    let before = counters(&app)["espalier_serving_batched_inputs_total"];
    let inputs: Inputs = (0..INPUTS as usize).collect();
    let answered: Option<PredictResult> = std::thread::scope(|scope| {
        let client = LoadClient::new(&app, 0);
        let asking = scope.spawn(move || client.predict(Some("questions"), &inputs));
        // Some inputs of the request are computed, so its adapter is loaded, and others are still queued.
        while counters(&app)["espalier_serving_batched_inputs_total"] - before < 1.0 {}
        assert_eq!(app.delete("/adapters/questions").status, 204);
        let done = counters(&app)["espalier_serving_batched_inputs_total"] - before;
        assert!(done < INPUTS, "the request was answered before the adapter was deleted");
        asking.join().unwrap()
    });
    let answered = answered.expect("a request under way gets its answer");
    assert_eq!((answered.rows.len(), answered.version), (INPUTS as usize, version));
    assert_eq!(app.post("/predict?adapter=questions", &json!({"inputs": ["my card"]})).status, 404);
    assert_eq!(std::fs::read_dir(app.setup.data_dir().join("adapters")).unwrap().count(), 0);
}
