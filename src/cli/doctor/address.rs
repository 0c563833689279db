//! Whether the address is free, or a server is running there.

use super::CheckResult;
use crate::cli::client::{Client, ClientArgs};
use crate::cli::health::loopback_if_unspecified;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

const SUBJECT: &str = "address";

pub fn check(listen: SocketAddr) -> CheckResult {
    match TcpListener::bind(listen) {
        Ok(_) => CheckResult::pass(SUBJECT, format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => check_occupied(listen),
        Err(error) => {
            CheckResult::fail(SUBJECT, format!("cannot listen on {listen}: {error}"), "choose another with --listen")
        }
    }
}

fn check_occupied(listen: SocketAddr) -> CheckResult {
    let server = format!("http://{}", loopback_if_unspecified(listen));
    let remote = ClientArgs { server: Some(server.clone()), ..ClientArgs::default() };
    match Client::new(&remote).ok().and_then(|client| client.server_version()) {
        Some(version) => CheckResult::pass(SUBJECT, format!("espalier {version} is running at {server}")),
        None => CheckResult::fail(
            SUBJECT,
            format!("{listen} is in use by another program"),
            "stop that program, or listen elsewhere with --listen",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    fn free_address_passes_and_occupied_address_fails() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let stranger = std::thread::spawn(move || drop(taken.accept()));
        let finding = check(address);
        assert_eq!(finding.status, CheckStatus::Fail);
        assert!(finding.detail.contains("another program"), "{}", finding.detail);
        stranger.join().unwrap();
        assert_eq!(check(address).status, CheckStatus::Pass);
    }
}
