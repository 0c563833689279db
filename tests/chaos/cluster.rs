//! The hosts, the database and the S3 server, and which faults are active.

use crate::database::Database;
use crate::host::Host;
use crate::injection::Fault;
use crate::network::Network;
use crate::report::Report;
use crate::s3_server::{self, S3Server};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const ROLES: [&str; 5] = ["api", "api", "worker", "worker", "worker"];

/// Number of API replicas, which come first among the hosts.
pub const REPLICAS: usize = 2;

pub struct Cluster<'test> {
    report: &'test Report,
    pub hosts: Vec<Host>,
    pub s3: S3Server,
    database: Database,
    runtime: Runtime,
    network: Network,
    active: Mutex<Vec<ActiveFault>>,
    ended: Mutex<Vec<(Option<usize>, Instant)>>,
}

#[derive(Clone, Copy, PartialEq)]
struct ActiveFault {
    fault: Fault,
    /// `None` for all hosts.
    host: Option<usize>,
}

impl<'test> Cluster<'test> {
    pub fn start(report: &'test Report) -> Self {
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(Database::postgres());
        let (s3, network) = (S3Server::start(), Network::new());
        let host = |(number, role): (usize, &'static str)| Host::new(&network, number, role, database.url(), &s3);
        let hosts: Vec<Host> = ROLES.into_iter().enumerate().map(host).collect();
        let active = Mutex::default();
        let cluster = Self { report, hosts, s3, database, runtime, network, active, ended: Mutex::default() };
        // The server of the tests loses the last commits in a crash by default.
        let name = cluster.database.url().rsplit('/').next().unwrap();
        cluster.execute(&format!("alter database {name} set synchronous_commit = on"));
        // This commit is one of those.
        cluster.execute("checkpoint");
        cluster.hosts.iter().for_each(Host::start);
        report.set_start();
        cluster
    }

    pub fn network_kind(&self) -> &'static str {
        if self.network.has_namespaces() { "network namespaces" } else { "loopback addresses" }
    }

    pub fn replicas(&self) -> &[Host] {
        &self.hosts[..REPLICAS]
    }

    pub fn execute(&self, statement: &str) {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
            connection.execute(AssertSqlSafe(statement.to_string())).await.unwrap();
        });
    }

    /// Number of rows of a table.
    pub fn count_rows(&self, table: &str) -> i64 {
        self.query(format!("select count(*) from {table}"))
    }

    /// Whether the database keeps what it has committed.
    pub fn is_durable(&self) -> bool {
        self.query("select current_setting('synchronous_commit') = 'on'".to_string())
    }

    fn query<T>(&self, sql: String) -> T
    where
        (T,): for<'row> sqlx::FromRow<'row, sqlx::postgres::PgRow>,
        T: Send + Unpin,
    {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
        })
    }

    /// Restarts processes that have exited, until the end.
    pub fn supervise(&self, has_ended: &AtomicBool) {
        while !has_ended.load(Ordering::SeqCst) {
            self.hosts.iter().for_each(Host::restart_if_exited);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Restarts PostgreSQL as after a crash.
    pub fn restart_postgres() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres.sh");
        assert!(Command::new(script).arg("restart").status().unwrap().success());
    }

    pub fn begin(&self, fault: Fault, host: Option<usize>) {
        self.active.lock().unwrap().push(ActiveFault { fault, host });
        self.report.count_fault(fault);
    }

    pub fn end(&self, fault: Fault, host: Option<usize>) {
        let ended = ActiveFault { fault, host };
        let mut active = self.active.lock().unwrap();
        let index = active.iter().position(|one| *one == ended).unwrap();
        active.swap_remove(index);
        self.ended.lock().unwrap().push((host, Instant::now()));
    }

    /// Faults that are active now.
    pub fn active_faults(&self) -> Vec<Fault> {
        self.active.lock().unwrap().iter().map(|one| one.fault).collect()
    }

    /// Whether no fault that concerns a host was active since then.
    pub fn was_calm(&self, host: usize, since: Instant) -> bool {
        let concerns = |target: Option<usize>| target.is_none_or(|target| target == host);
        !self.active.lock().unwrap().iter().any(|one| concerns(one.host))
            && !self
                .ended
                .lock()
                .unwrap()
                .iter()
                .rev()
                .take_while(|(_, at)| *at >= since)
                .any(|(target, _)| concerns(*target))
    }

    pub fn end_all_faults(&self) {
        self.s3.set_fault(s3_server::Fault::None);
        self.hosts.iter().for_each(Host::end_faults);
    }

    /// Terminates the processes; each must exit with the status 0, and none may have panicked.
    pub fn stop(self) {
        let report = self.report;
        for host in &self.hosts {
            host.signal(15);
        }
        for host in &self.hosts {
            let code = host.wait();
            report.check(code == Some(0), || format!("{} {} exited with {code:?}", host.role, host.number));
            let log = std::fs::read_to_string(host.log_file()).unwrap();
            for line in log.lines().filter(|line| line.contains("panicked")) {
                report.add_violation(format!("{} {} panicked: {line}", host.role, host.number));
            }
            report.add_process(host);
            report.keep_log(host);
        }
        if report.has_no_violation() {
            self.runtime.block_on(self.database.drop_database());
        }
    }
}
