//! Networks of the hosts: a network namespace each, or loopback addresses without the permission to make namespaces.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// Subnet of the namespaces, beside those of containers.
const SUBNET: [u8; 3] = [10, 213, 77];

/// Names of bridges and namespaces begin with it, and go on with the id of the test's process.
const PREFIX: &str = "chaos";

/// A bridge that connects the hosts' namespaces to the test.
pub struct Network {
    /// `None` on loopback addresses.
    bridge: Option<String>,
}

/// Network interface of a host.
pub struct Interface {
    pub address: Ipv4Addr,
    /// Namespace, and the end of its link at the bridge.
    namespace: Option<(String, String)>,
}

fn ip(arguments: &[&str]) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Output of `ip`; empty if it fails.
fn ip_output(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Removes the namespaces, processes and bridges of tests that were killed.
fn remove_leftovers() {
    let is_leftover = |name: &str| {
        let process = name.strip_prefix(PREFIX).map(|rest| rest.split('-').next().unwrap_or_default());
        process.is_some_and(|process| !std::path::Path::new("/proc").join(process).exists())
    };
    for line in ip_output(&["netns", "list"]).lines() {
        let namespace = line.split_whitespace().next().unwrap_or_default();
        if is_leftover(namespace) {
            for process in ip_output(&["netns", "pids", namespace]).split_whitespace() {
                // It may have ended.
                let _ = Command::new("kill").args(["-9", process]).status();
            }
            ip(&["netns", "del", namespace]);
        }
    }
    for line in ip_output(&["-brief", "link", "show", "type", "bridge"]).lines() {
        let bridge = line.split_whitespace().next().unwrap_or_default();
        if is_leftover(bridge) {
            ip(&["link", "del", bridge]);
        }
    }
}

impl Network {
    pub fn new() -> Self {
        remove_leftovers();
        let bridge = format!("{PREFIX}{}", std::process::id());
        let gateway = format!("{}/24", Self::address_in_subnet(1));
        let is_made = ip(&["link", "add", &bridge, "type", "bridge"]);
        let network = Self { bridge: is_made.then_some(bridge.clone()) };
        if is_made && ip(&["addr", "add", &gateway, "dev", &bridge]) && ip(&["link", "set", &bridge, "up"]) {
            return network;
        }
        Self { bridge: None }
    }

    pub fn has_namespaces(&self) -> bool {
        self.bridge.is_some()
    }

    /// Address at which hosts reach servers of the test.
    pub fn gateway(&self) -> Ipv4Addr {
        match self.bridge {
            Some(_) => Self::address_in_subnet(1),
            None => Ipv4Addr::LOCALHOST,
        }
    }

    pub fn add_interface(&self, number: u8) -> Interface {
        let Some(bridge) = &self.bridge else {
            return Interface { address: Ipv4Addr::new(127, 0, 0, 10 + number), namespace: None };
        };
        let (namespace, link) = (format!("{bridge}-{number}"), format!("{bridge}v{number}"));
        let address = Self::address_in_subnet(10 + number);
        let cidr = format!("{address}/24");
        let commands: [&[&str]; 6] = [
            &["netns", "add", &namespace],
            &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace],
            &["link", "set", &link, "master", bridge, "up"],
            &["-n", &namespace, "addr", "add", &cidr, "dev", "eth0"],
            &["-n", &namespace, "link", "set", "eth0", "up"],
            &["-n", &namespace, "link", "set", "lo", "up"],
        ];
        for command in commands {
            assert!(ip(command), "ip {command:?}");
        }
        Interface { address, namespace: Some((namespace, link)) }
    }

    fn address_in_subnet(last: u8) -> Ipv4Addr {
        let [first, second, third] = SUBNET;
        Ipv4Addr::new(first, second, third, last)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(bridge) = &self.bridge {
            ip(&["link", "del", bridge]);
        }
    }
}

impl Interface {
    /// Command that runs a program on this host.
    pub fn command(&self, program: &str) -> Command {
        let Some((namespace, _)) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, program]);
        command
    }

    /// Drops all packets from and to the host; returns whether the host has a link of its own.
    pub fn set_link(&self, is_up: bool) -> bool {
        let Some((_, link)) = &self.namespace else { return false };
        assert!(ip(&["link", "set", link, if is_up { "up" } else { "down" }]));
        true
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        if let Some((namespace, _)) = &self.namespace {
            ip(&["netns", "del", namespace]);
        }
    }
}
