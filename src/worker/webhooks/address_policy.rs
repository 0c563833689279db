//! Which addresses a webhook may call: those of the public internet, and those that the operator allows. A webhook's owner could
//! otherwise reach services inside the operator's network (server-side request forgery).

use espalier_core::error::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 ranges that are not public (IANA's special-purpose registry), as network and prefix length.
const SPECIAL_IPV4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // link-local, with the metadata services of the clouds
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // multicast, and reserved with the broadcast address
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    // Azure's address of its platform services
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];
/// The only IPv6 range of public addresses. Outside it are loopback, link-local, unique local, multicast and NAT64.
const GLOBAL_IPV6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Ranges inside it that are not public, or hold IPv4 addresses.
const SPECIAL_IPV6: [(Ipv6Addr, u32); 4] = [
    // IETF protocol assignments, with Teredo
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Hosts and networks that webhooks may call beside the public internet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    networks: Vec<Network>,
    /// Names in lower case; their addresses are not checked.
    hosts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl AddressPolicy {
    /// Parses addresses, networks such as `10.0.0.0/8`, and host names.
    ///
    /// # Errors
    /// `Invalid` for text that is none of these.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut policy = Self::default();
        for entry in entries {
            match (Network::parse(entry), is_host_name(entry)) {
                (Some(network), _) => policy.networks.push(network),
                (None, true) => policy.hosts.push(entry.to_ascii_lowercase()),
                (None, false) => {
                    let detail = format!(
                        "\"{entry}\" is not an address, a network or the name of a host: --webhook-allow takes entries such as \
                         10.1.2.3, 10.0.0.0/8 or hooks.internal, separated by commas"
                    );
                    return Err(Error::invalid("invalid_webhook_allow", detail));
                }
            }
        }
        Ok(policy)
    }

    /// Whether a webhook may call this address under this name. Names are compared without the dot of a fully qualified one.
    pub fn allows(&self, host: &str, address: IpAddr) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let address = address.to_canonical();
        self.hosts.contains(&host)
            || self.networks.iter().any(|network| network.contains(address))
            || is_public(address)
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { address, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => contains_v4((network, self.prefix), address),
            (IpAddr::V6(network), IpAddr::V6(address)) => contains_v6((network, self.prefix), address),
            _ => false,
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_IPV4.iter().any(|network| contains_v4(*network, address)),
        IpAddr::V6(address) => {
            contains_v6(GLOBAL_IPV6, address) && !SPECIAL_IPV6.iter().any(|network| contains_v6(*network, address))
        }
    }
}

fn contains_v4((network, prefix): (Ipv4Addr, u32), address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    network.to_bits() & mask == address.to_bits() & mask
}

fn contains_v6((network, prefix): (Ipv6Addr, u32), address: Ipv6Addr) -> bool {
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    network.to_bits() & mask == address.to_bits() & mask
}

fn is_host_name(text: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // A name of digits alone is a mistyped address.
    !text.is_empty() && text.bytes().all(is_name_byte) && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed_by(entries: &[&str], host: &str, address: &str) -> bool {
        AddressPolicy::parse(entries.iter().copied()).unwrap().allows(host, address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in
            ["1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert!(allowed_by(&[], "example.com", address), "{address}");
        }
    }

    #[test]
    fn addresses_inside_networks_are_refused() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in refused {
            assert!(!allowed_by(&[], "example.com", address), "{address}");
            assert!(!allowed_by(&["other.example"], "example.com", address), "{address}");
        }
    }

    #[test]
    fn operator_may_allow_addresses_networks_and_hosts() {
        assert!(allowed_by(&["10.1.2.3"], "x", "10.1.2.3") && !allowed_by(&["10.1.2.3"], "x", "10.1.2.4"));
        assert!(allowed_by(&["10.0.0.0/8"], "x", "10.255.0.1"));
        assert!(allowed_by(&["127.0.0.0/8"], "x", "::ffff:127.0.0.1"));
        assert!(allowed_by(&["fd00::/8"], "x", "fd12::1") && !allowed_by(&["fd00::/8"], "x", "fc00::1"));
        assert!(allowed_by(&["0.0.0.0/0"], "x", "10.0.0.1") && !allowed_by(&["0.0.0.0/0"], "x", "::1"));
        assert!(allowed_by(&["Hooks.internal"], "hooks.INTERNAL.", "10.0.0.1"));
        assert!(!allowed_by(&["hooks.internal"], "hooks.internal.evil.example", "10.0.0.1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0", "::1/129", "a b", "https://a", "10.0.0.0/x"] {
            assert_eq!(AddressPolicy::parse([wrong]).unwrap_err().code(), "invalid_webhook_allow", "{wrong}");
        }
    }
}
