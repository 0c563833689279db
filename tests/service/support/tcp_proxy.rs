//! TCP proxy in front of a server, with faults of a network.

use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Forwards connections to one server. Its threads end with the process.
pub struct TcpProxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    server: String,
    is_cut: AtomicBool,
    /// Added to every message, in milliseconds.
    delay: AtomicU64,
    /// Nothing is forwarded, and no connection is closed.
    is_stalled: AtomicBool,
    /// Messages of the clients so far; counted while `fails_at` is not 0.
    messages: AtomicU64,
    /// Number of the message at which its connection is closed; 0 for none.
    fails_at: AtomicU64,
    failures: AtomicU64,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// The server's side is closed and the client is not told.
    is_half_open: Arc<AtomicBool>,
}

impl TcpProxy {
    /// `server` is `host:port`.
    pub fn start(server: &str) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, server)
    }

    /// Listens on a free port of this address.
    pub fn start_on(address: Ipv4Addr, server: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server: server.to_string(),
            is_cut: AtomicBool::new(false),
            delay: AtomicU64::new(0),
            is_stalled: AtomicBool::new(false),
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
            connection.close();
        }
    }

    /// Ends every lasting fault. Connections that were closed or are half open stay so.
    pub fn restore(&self) {
        self.state.delay.store(0, Ordering::SeqCst);
        self.state.is_stalled.store(false, Ordering::SeqCst);
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// Delays every message by this much.
    pub fn set_delay(&self, delay: Duration) {
        self.state.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Forwards nothing until [`Self::restore`], as if packets were dropped.
    pub fn stall(&self) {
        self.state.is_stalled.store(true, Ordering::SeqCst);
    }

    /// Closes all connections with RST.
    pub fn reset_connections(&self) {
        for connection in self.state.connections.lock().unwrap().drain(..) {
            for stream in [&connection.client, &connection.server] {
                // Fails if the connection is closed already.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            connection.close();
        }
    }

    /// Closes the server's side of all connections without telling the clients, whose messages are lost from now on.
    pub fn make_half_open(&self) {
        for connection in self.state.connections.lock().unwrap().drain(..) {
            connection.is_half_open.store(true, Ordering::SeqCst);
            // Fails if the connection is closed already.
            let _ = connection.server.shutdown(Shutdown::Both);
        }
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

impl Connection {
    fn close(&self) {
        // Fails if the connection is closed already.
        let _ = (self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both));
    }

    fn is_closed(&self) -> bool {
        self.client.take_error().is_err() || self.client.peer_addr().is_err()
    }
}

impl State {
    fn forward(self: &Arc<Self>, client: TcpStream) {
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        // A server that is down refuses; so does the proxy then.
        let Ok(server) = TcpStream::connect(&self.server) else { return };
        let is_half_open = Arc::new(AtomicBool::new(false));
        let (Ok(()), Ok(()), Ok(one), Ok(other)) =
            (client.set_nodelay(true), server.set_nodelay(true), client.try_clone(), server.try_clone())
        else {
            return;
        };
        let mut connections = self.connections.lock().unwrap();
        connections.retain(|connection| !connection.is_closed());
        connections.push(Connection { client: one, server: other, is_half_open: Arc::clone(&is_half_open) });
        drop(connections);
        let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
        let (state, half_open) = (Arc::clone(self), Arc::clone(&is_half_open));
        thread::spawn(move || state.copy(from_client, to_server, &half_open, State::counts_down));
        let state = Arc::clone(self);
        thread::spawn(move || state.copy(server, client, &is_half_open, |_| false));
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

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, is_half_open: &AtomicBool, fails: impl Fn(&Self) -> bool) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            if count > 0 && is_half_open.load(Ordering::SeqCst) {
                continue;
            }
            while count > 0 && self.is_stalled.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst)));
            if count == 0 || fails(self) || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        if !is_half_open.load(Ordering::SeqCst) {
            // Either may be closed already.
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        }
    }
}
