//! Whether the address is free, or a server is running there.

use super::Finding;
use crate::cli::client::{Client, Remote};
use crate::cli::health::reachable;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

const SUBJECT: &str = "address";

pub fn check(listen: SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::good(SUBJECT, format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => occupied(listen),
        Err(error) => {
            Finding::bad(SUBJECT, format!("cannot listen on {listen}: {error}"), "choose another with --listen")
        }
    }
}

fn occupied(listen: SocketAddr) -> Finding {
    let server = format!("http://{}", reachable(listen));
    let remote = Remote { server: Some(server.clone()), ..Remote::default() };
    match Client::new(&remote).ok().and_then(|client| client.version()) {
        Some(version) => Finding::good(SUBJECT, format!("espalier {version} is running at {server}")),
        None => Finding::bad(
            SUBJECT,
            format!("{listen} is in use by another program"),
            "stop that program, or listen elsewhere with --listen",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_free_address_is_good_and_a_strangers_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let stranger = std::thread::spawn(move || drop(taken.accept()));
        let finding = check(address);
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(finding.detail.contains("another program"), "{}", finding.detail);
        stranger.join().unwrap();
        assert_eq!(check(address).verdict, Verdict::Good);
    }
}
