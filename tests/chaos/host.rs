//! A host: a server process that a supervisor restarts, its disk, and its links to the database and the object storage.

use crate::network::{Interface, Network};
use crate::preload::FaultControl;
use crate::s3_server::S3Server;
use crate::tcp_proxy::TcpProxy;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

/// Time after which another worker takes the job of a silent one.
pub const LEASE_SECONDS: u64 = 5;

const SETTINGS: [(&str, &str); 12] = [
    ("--heartbeat-interval", "500ms"),
    ("--poll-interval", "200ms"),
    ("--event-poll-interval", "200ms"),
    ("--checkpoint-interval", "500ms"),
    ("--retention-interval", "1s"),
    ("--max-attempts", "1000"),
    ("--training-threads", "1"),
    ("--serving-threads", "1"),
    ("--shutdown-timeout", "5s"),
    // Adapters are evicted and downloaded again all the time.
    ("--blob-cache-size", "256KiB"),
    ("--adapter-cache-size", "256KiB"),
    ("--log-format", "json"),
];

pub struct Host {
    pub number: usize,
    pub role: &'static str,
    pub address: SocketAddr,
    pub interface: Interface,
    pub database: TcpProxy,
    pub storage: TcpProxy,
    pub disk: FaultControl,
    folder: TempDir,
    database_url: String,
    blob_store: String,
    process: Mutex<Option<Child>>,
    /// The supervisor does not restart the process.
    pub is_held: AtomicBool,
    pub starts: AtomicU64,
    /// Exits with an error that nobody asked for.
    pub failed_exits: AtomicU64,
}

impl Host {
    /// `database` is the URL for clients on this machine.
    pub fn new(network: &Network, number: usize, role: &'static str, database: &str, s3: &S3Server) -> Self {
        let interface = network.add_interface(u8::try_from(number).unwrap());
        let address = match network.has_namespaces() {
            true => SocketAddr::from((interface.address, 8080)),
            false => TcpListener::bind((interface.address, 0)).unwrap().local_addr().unwrap(),
        };
        let (user, rest) = database.split_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let link = TcpProxy::start_on(network.gateway(), server);
        let storage = TcpProxy::start_on(network.gateway(), &s3.address.to_string());
        let folder = tempfile::tempdir().unwrap();
        Self {
            number,
            role,
            address,
            interface,
            disk: FaultControl::create(&folder.path().join("faults")),
            database_url: format!("{user}@{}/{name}", link.address),
            database: link,
            blob_store: s3.url("blobs").replace(&s3.address.to_string(), &storage.address.to_string()),
            storage,
            folder,
            process: Mutex::default(),
            is_held: AtomicBool::new(false),
            starts: AtomicU64::new(0),
            failed_exits: AtomicU64::new(0),
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn start(&self) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.interface.command(env!("CARGO_BIN_EXE_espalier"));
        command
            .args(["serve", "--insecure-no-auth", "--role", self.role, "--listen", &self.address.to_string()])
            .args(["--lease-duration", &format!("{LEASE_SECONDS}s")])
            .args(["--database-url", &self.database_url, "--blob-store", &self.blob_store, "--model"])
            .arg(espalier_testing::jobs::fixture("tiny-bert"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(SETTINGS.iter().flat_map(|(name, value)| [name, value]))
            .envs(S3Server::credentials())
            .envs(self.disk.environment(&self.data_dir()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        *self.process.lock().unwrap() = Some(command.spawn().unwrap());
        self.starts.fetch_add(1, Ordering::SeqCst);
    }

    /// Starts the process again if it has exited.
    pub fn restart_if_exited(&self) {
        if self.is_held.load(Ordering::SeqCst) {
            return;
        }
        let exit = self.process.lock().unwrap().as_mut().map(|child| child.try_wait().unwrap());
        match exit {
            Some(None) => {}
            Some(Some(status)) => {
                if status.code().is_some_and(|code| code != 0) {
                    self.failed_exits.fetch_add(1, Ordering::SeqCst);
                }
                self.start();
            }
            None => self.start(),
        }
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            // Fails if it has exited already.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by its number; nothing if the process has exited.
    pub fn signal(&self, signal: i32) {
        if let Some(child) = self.process.lock().unwrap().as_ref() {
            let arguments = [format!("-{signal}"), child.id().to_string()];
            let _ = std::process::Command::new("kill").args(arguments).stderr(Stdio::null()).status();
        }
    }

    /// Waits for the exit after a signal.
    pub fn wait(&self) -> Option<i32> {
        self.process.lock().unwrap().take().and_then(|mut child| child.wait().unwrap().code())
    }

    /// Empties the disk of a killed host.
    pub fn empty_disk(&self) {
        match fs::remove_dir_all(self.data_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    /// Ends every fault of this host.
    pub fn end_faults(&self) {
        self.signal(18);
        self.is_held.store(false, Ordering::SeqCst);
        self.disk.set(0, 0, 0);
        self.disk.set_clock_offset(0);
        self.database.restore();
        self.storage.restore();
        self.interface.set_link(true);
    }
}
