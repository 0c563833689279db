//! Many adapters asked at once by many clients, while one job trains and others come and go.

use crate::api::app::{App, Setup};
use crate::api::traffic::{Answered, Client, Inputs, Oracle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, RwLock};

const ADAPTERS: usize = 16;
const CLIENTS: usize = 32;
/// Answers between two changes that the publisher makes.
const PACE: usize = 25;

fn requests_per_client() -> usize {
    if std::env::var_os("ESPALIER_SOAK").is_some() { 400 } else { 40 }
}

/// A short job with labels of its own; methods, poolings and numbers of labels differ from one to the next.
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

/// An adapter that is there all the time: how to ask it, and its version.
struct Fixed {
    ways: [String; 3],
    version: String,
}

fn fixed(app: &App, number: usize) -> Fixed {
    let name = format!("fixed-{number}");
    let job = app.trained(&job(Some(&name), number));
    let (id, version) = (text(&job["adapter_id"]), text(&job["adapter"]["version"]));
    let digits = version.trim_start_matches("sha256:")[..12].to_string();
    Fixed { ways: [id, name.clone(), format!("{name}@{digits}")], version }
}

/// An adapter as a zip, which is nowhere on the server yet.
struct Packed {
    zip: Vec<u8>,
    version: String,
}

/// Trains an adapter, asks it alone, and takes it away.
fn packed(app: &App, oracle: &mut Oracle, number: usize) -> Packed {
    let job = app.trained(&job(None, number));
    let (id, version) = (text(&job["adapter_id"]), text(&job["adapter"]["version"]));
    oracle.learn(&version, Some(&id));
    let zip = app.get(&format!("/adapters/{id}/download")).body;
    assert_eq!(app.delete(&format!("/adapters/{id}")).status, 204);
    Packed { zip, version }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

/// What clients and the publisher share.
struct Scene {
    fixed: Vec<Fixed>,
    oracle: Oracle,
    /// The versions that the name `moving` has pointed to, the last one perhaps not yet.
    moves: Mutex<Vec<String>>,
    /// How many moves are done.
    moved: AtomicUsize,
    /// An adapter that may be deleted at any time: its id and its version.
    passing: RwLock<(String, String)>,
}

impl Scene {
    /// One request after another, each for an adapter drawn at random.
    fn client(&self, client: &mut Client, answered: &SyncSender<()>) {
        for _ in 0..requests_per_client() {
            let inputs = client.draw_inputs();
            match client.draw(ADAPTERS + 3) {
                number if number < ADAPTERS => {
                    let Fixed { ways, version } = &self.fixed[number];
                    let way = &ways[client.draw(ways.len())];
                    self.oracle.check(&client.ask(Some(way), &inputs).unwrap(), &inputs, version);
                }
                ADAPTERS => self.oracle.check(&client.ask(None, &inputs).unwrap(), &inputs, "base"),
                number if number == ADAPTERS + 1 => self.ask_moving(client, &inputs),
                _ => self.ask_passing(client, &inputs),
            }
            // The publisher may be done.
            let _ = answered.try_send(());
        }
    }

    /// The name always points to an adapter: to the one of the last move, or of one that is being made.
    fn ask_moving(&self, client: &Client, inputs: &Inputs) {
        let first = self.moved.load(Ordering::SeqCst) - 1;
        let answered = client.ask(Some("moving"), inputs).expect("the name always points to an adapter");
        let possible = self.moves.lock().unwrap()[first..].to_vec();
        assert!(possible.contains(&answered.version), "{} is none of {possible:?}", answered.version);
        self.oracle.check(&answered, inputs, &answered.version);
    }

    fn ask_passing(&self, client: &Client, inputs: &Inputs) {
        let (id, version) = self.passing.read().unwrap().clone();
        // `None` where it is deleted already.
        if let Some(answered) = client.ask(Some(&id), inputs) {
            self.oracle.check(&answered, inputs, &version);
        }
    }

    /// Publishes and deletes for as long as clients ask: by upload and by training.
    fn publisher(&self, app: &Publisher, packed: &[Packed; 4], answers: &Receiver<()>) -> usize {
        let [one, other, passing, next] = packed;
        let mut before = app.upload("/adapters?name=moving", other);
        let mut rounds = 0;
        while (0..PACE).all(|_| answers.recv().is_ok()) {
            let (to, id) = match rounds % 2 {
                0 => (one, passing),
                _ => (other, next),
            };
            self.moves.lock().unwrap().push(to.version.clone());
            let now = app.upload("/adapters?name=moving", to);
            self.moved.fetch_add(1, Ordering::SeqCst);
            app.delete(&std::mem::replace(&mut before, now));

            let fresh = app.upload("/adapters", id);
            let gone = std::mem::replace(&mut *self.passing.write().unwrap(), (fresh, id.version.clone()));
            app.delete(&gone.0);
            if rounds % 4 == 0 {
                app.train_and_delete(rounds);
            }
            rounds += 1;
        }
        rounds
    }
}

/// The server as the publisher sees it; clients have their own.
struct Publisher<'a> {
    client: &'a Client,
}

impl Publisher<'_> {
    /// Answers the new adapter's id.
    fn upload(&self, path: &str, packed: &Packed) -> String {
        let (status, adapter) = self.client.post(path, "application/zip", &packed.zip);
        assert_eq!((status, &adapter["version"]), (201, &json!(packed.version)), "{adapter:#}");
        text(&adapter["id"])
    }

    /// Whoever asks after this finds nothing.
    fn delete(&self, id: &str) {
        assert_eq!(self.client.delete(&format!("/adapters/{id}")), 204);
        assert!(self.client.ask(Some(id), &vec![0]).is_none());
    }

    fn train_and_delete(&self, number: usize) {
        let job = self.client.trained(&job(None, 100 + number));
        let adapter = text(&job["adapter_id"]);
        assert!(self.client.ask(Some(&adapter), &vec![0]).is_some());
        self.delete(&adapter);
    }
}

#[test]
fn mixed_batches_answer_as_one_by_one_while_adapters_come_and_go() {
    let flags = ["--slots", "2", "--adapter-cache", "96KiB", "--batch-window", "10ms", "--batch-tokens", "4096"];
    let app = Setup::new().with(&flags).start();
    let mut oracle = Oracle::new(&app);
    let fixed: Vec<Fixed> = (0..ADAPTERS).map(|number| fixed(&app, number)).collect();
    fixed.iter().for_each(|fixed| oracle.learn(&fixed.version, Some(&fixed.ways[0])));
    oracle.learn("base", None);
    let packed = [20, 21, 22, 23].map(|number| packed(&app, &mut oracle, number));
    let first = Publisher { client: &Client::new(&app, 0) }.upload("/adapters?name=moving", &packed[1]);
    let passing = Publisher { client: &Client::new(&app, 0) }.upload("/adapters", &packed[3]);
    let scene = Scene {
        fixed,
        oracle,
        moves: Mutex::new(vec![packed[1].version.clone()]),
        moved: AtomicUsize::new(1),
        passing: RwLock::new((passing, packed[3].version.clone())),
    };

    let mut long = job(Some("long"), 30);
    long["hyperparameters"]["epochs"] = json!(100_000);
    let long = app.train(&long);
    app.wait_for_progress(&long);
    let (before, step) = (counters(&app), step(&app, &long));
    let rounds = traffic(&app, &scene, &packed);
    let now = app.get(&format!("/jobs/{long}")).json();
    assert_eq!((&now["status"], &now["attempt"]), (&json!("running"), &json!(1)));
    println!("the long job did {} steps meanwhile", now["progress"]["step"].as_u64().unwrap() - step);
    assert_eq!(app.post(&format!("/jobs/{long}/cancel"), &json!({})).status, 200);
    app.wait(&long);

    let after = counters(&app);
    let of = |name: &str| (after[name] - before.get(name).unwrap_or(&0.0)).max(0.0);
    let requests = (CLIENTS * requests_per_client()) as f64;
    let (batches, inputs) = (of("espalier_serving_batches_total"), of("espalier_serving_batched_inputs_total"));
    let (requests_each, inputs_each) = (requests / batches, inputs / batches);
    println!("{requests} requests in {batches} batches: {requests_each:.1} requests, {inputs_each:.1} inputs each");
    println!("{rounds} rounds of publishing and deleting, {} evictions", of("espalier_serving_evictions_total"));
    assert!(requests_each > 2.0, "the batches held one request each, so nothing was mixed");
    assert!(of("espalier_serving_evictions_total") > 0.0 && rounds > 3);
    let text = app.get("/metrics").text();
    assert!(!text.contains("status=\"5"), "{text}");
    assert_eq!(app.delete(&format!("/adapters/{first}")).status, 204);
}

fn traffic(app: &App, scene: &Scene, packed: &[Packed; 4]) -> usize {
    let clients: Vec<Client> = (0..=CLIENTS).map(|number| Client::new(app, number as u64)).collect();
    let (answered, answers) = sync_channel(CLIENTS * requests_per_client());
    std::thread::scope(|scope| {
        let mut clients = clients.into_iter();
        let publishing = clients.next().unwrap();
        for mut client in clients {
            let answered = answered.clone();
            scope.spawn(move || scene.client(&mut client, &answered));
        }
        drop(answered);
        scope.spawn(move || scene.publisher(&Publisher { client: &publishing }, packed, &answers)).join().unwrap()
    })
}

fn step(app: &App, job: &str) -> u64 {
    app.get(&format!("/jobs/{job}")).json()["progress"]["step"].as_u64().unwrap_or(0)
}

/// The metrics without labels.
fn counters(app: &App) -> BTreeMap<String, f64> {
    let text = app.get("/metrics").text();
    let line =
        |line: &str| line.split_once(' ').and_then(|(name, value)| Some((name.to_string(), value.parse().ok()?)));
    text.lines().filter_map(line).collect()
}

#[test]
fn a_request_under_way_keeps_its_adapter_and_the_next_finds_none() {
    const INPUTS: f64 = 8192.0;
    let most = ["--max-inputs", "8192", "--max-waiting", "8192"];
    let app = Setup::new().with(&["--serving-threads", "1", "--batch-tokens", "16"]).with(&most).start();
    let version = text(&app.trained(&job(Some("questions"), 0))["adapter"]["version"]);
    let before = counters(&app)["espalier_serving_batched_inputs_total"];
    let inputs: Inputs = (0..INPUTS as usize).collect();
    let answered: Option<Answered> = std::thread::scope(|scope| {
        let client = Client::new(&app, 0);
        let asking = scope.spawn(move || client.ask(Some("questions"), &inputs));
        // Some of its inputs are computed, so it has its adapter, and others still wait.
        while counters(&app)["espalier_serving_batched_inputs_total"] - before < 1.0 {}
        assert_eq!(app.delete("/adapters/questions").status, 204);
        let done = counters(&app)["espalier_serving_batched_inputs_total"] - before;
        assert!(done < INPUTS, "the request was answered before the adapter was deleted");
        asking.join().unwrap()
    });
    let answered = answered.expect("a request under way gets its answer");
    assert_eq!((answered.rows.len(), answered.version), (INPUTS as usize, version));
    assert_eq!(app.post("/predict?adapter=questions", &json!({"inputs": ["my card"]})).status, 404);
    assert_eq!(std::fs::read_dir(app.setup.data().join("adapters")).unwrap().count(), 0);
}
