//! TCP proxy between the server and its database that closes connections when a test says so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Forwards connections to one server. Its threads end with the process.
pub struct TcpProxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    server: String,
    is_cut: AtomicBool,
    /// Messages of the clients so far; counted while `fails_at` is not 0.
    messages: AtomicU64,
    /// Number of the message at which its connection is closed; 0 for none.
    fails_at: AtomicU64,
    failures: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

impl TcpProxy {
    /// `server` is `host:port`.
    pub fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server: server.to_string(),
            is_cut: AtomicBool::new(false),
            messages: AtomicU64::new(0),
            fails_at: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accepting.forward(client);
            }
        });
        Self { address, state }
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        for connection in self.state.connections.lock().unwrap().drain(..) {
            // Fails if the connection is closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Forwards connections again.
    pub fn restore(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// Closes the connection of the `number`-th message from now on, before the message is forwarded; 0 closes none.
    pub fn close_at_message(&self, number: u64) {
        self.state.fails_at.store(0, Ordering::SeqCst);
        self.state.messages.store(0, Ordering::SeqCst);
        self.state.failures.store(0, Ordering::SeqCst);
        self.state.fails_at.store(number, Ordering::SeqCst);
    }

    /// Connections closed since [`Self::close_at_message`].
    pub fn failures(&self) -> u64 {
        self.state.failures.load(Ordering::SeqCst)
    }
}

impl State {
    fn forward(self: &Arc<Self>, client: TcpStream) {
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        let server = TcpStream::connect(&self.server).unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        self.connections.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let state = Arc::clone(self);
        thread::spawn(move || copy(from_client, to_server, || state.counts_down()));
        thread::spawn(move || copy(server, client, || false));
    }

    /// Counts a message; returns whether its connection fails.
    fn counts_down(&self) -> bool {
        let fails_at = self.fails_at.load(Ordering::SeqCst);
        let fails = fails_at != 0 && self.messages.fetch_add(1, Ordering::SeqCst) + 1 == fails_at;
        if fails {
            self.failures.fetch_add(1, Ordering::SeqCst);
        }
        fails
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, fails: impl Fn() -> bool) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(count) if count > 0 && !fails() && to.write_all(&buffer[..count]).is_ok() => {}
            _ => break,
        }
    }
    // Either may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
