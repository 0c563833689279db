//! `espalier health`: readiness or liveness check, for container health checks.

use super::client::{Client, ClientArgs};
use super::error::CliResult;
use clap::Args;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Args)]
pub struct HealthArgs {
    /// Address that the server on this machine listens on, if --server is not set
    #[arg(long, env = "ESPALIER_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// Check liveness instead of readiness
    #[arg(long)]
    live: bool,

    #[command(flatten)]
    remote: ClientArgs,
}

pub fn run(args: &HealthArgs) -> CliResult {
    let mut remote = args.remote.clone();
    let local_url = args.listen.map(|listen| format!("http://{}", loopback_if_unspecified(listen)));
    remote.server = remote.server.or(local_url);
    let path = if args.live { "/health/live" } else { "/health/ready" };
    let response: Value = Client::new(&remote)?.get(path)?;
    let mut output = remote.output();
    output.write_json(&response)?;
    output.write_line(response["status"].as_str().unwrap_or("ok"))
}

/// Replaces an unspecified address (all interfaces) by the loopback address.
pub fn loopback_if_unspecified(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_address_maps_to_loopback() {
        let map = |listen: &str| loopback_if_unspecified(listen.parse().unwrap()).to_string();
        assert_eq!(
            [map("0.0.0.0:9000"), map("[::]:80"), map("10.0.0.7:80")],
            ["127.0.0.1:9000", "[::1]:80", "10.0.0.7:80"]
        );
    }
}
