//! Processes whose connections to PostgreSQL go through PgBouncer in transaction mode.

use crate::api::server_process::{ServerConfig, small_job};
use crate::support::database::Database;
use serde_json::json;
use std::net::TcpListener;
use std::process::{Child, Command};
use tokio::runtime::Runtime;

/// PgBouncer in front of a server; ends when it is dropped.
struct PgBouncer {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    /// `server` is `host:port`. The program is that of `ESPALIER_TEST_PGBOUNCER`: prepared statements need version 1.21 or later.
    fn start(server: &str) -> Self {
        let program = std::env::var("ESPALIER_TEST_PGBOUNCER").expect("the path of PgBouncer 1.21 or later");
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (host, server_port) = server.split_once(':').unwrap();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 5\nmax_prepared_statements = 200\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        // It refuses to run as root.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let mut command = match is_root {
            true => Command::new("setpriv"),
            false => Command::new(&program),
        };
        if is_root {
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(folder.path(), everybody).unwrap();
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &program]);
        }
        let process = command.arg("--quiet").arg(file).spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { process, port, _folder: folder }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs PgBouncer 1.21 or later in ESPALIER_TEST_PGBOUNCER"]
fn jobs_and_requests_work_through_a_pooler() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(Database::postgres());
    let (start, rest) = database.url().split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let pooler = PgBouncer::start(server);
    let setup = ServerConfig::new().with_database(format!("{start}@127.0.0.1:{}/{name}", pooler.port));
    let often = ["--poll-interval", "100ms", "--heartbeat-interval", "200ms", "--lease-duration", "3s"];
    let [api, worker] =
        ["api", "worker"].map(|role| setup.clone().with_arguments(&["--role", role]).with_arguments(&often).start());
    for process in [&api, &worker] {
        process.wait_for_log_since_start("connections go through a pooler");
    }
    for number in 0..20 {
        let job = api.train_to_success(&small_job(
            24,
            json!({"name": "intents", "hyperparameters": {"epochs": 4, "seed": number}}),
        ));
        let answer = api.post("/predict?adapter=intents", &json!({"inputs": ["where is my card"]})).json();
        assert!(answer["adapter"]["version"].is_string(), "{answer:#}");
        assert_eq!(job["attempt"], 1);
    }
    let cancelled = api.submit_job(&small_job(60, json!({"hyperparameters": {"epochs": 100_000}})));
    api.wait_for_status(&cancelled, "running");
    assert_eq!(api.post(&format!("/jobs/{cancelled}/cancel"), &json!({})).status, 200);
    assert_eq!(api.wait_for_job(&cancelled)["status"], "cancelled");
    for process in [&api, &worker] {
        let warnings: Vec<String> =
            process.log().into_iter().filter(|line| line.contains("\"level\":\"WARN\"")).collect();
        let unexpected: Vec<&String> = warnings.iter().filter(|line| !line.contains("no api key")).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }
    drop((api, worker, pooler));
    runtime.block_on(database.drop_database());
}
