//! HTTP client of webhooks. It resolves names itself and connects to the addresses that it has checked, so that a name cannot resolve
//! to a public address when it is checked and to a private one when it is called (DNS rebinding).

use super::address_policy::AddressPolicy;
use super::signature;
use crate::store::{ClaimedDelivery, DeliveryOutcome};
use espalier_core::error::Result;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{StatusCode, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, config::Config};

/// Error of the resolver for an address that webhooks may not call.
const REFUSED_ADDRESS: &str = "the address is not public";

/// Sends deliveries.
pub struct WebhookClient {
    agent: Agent,
}

/// Result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResult {
    Delivered(u16),
    Gone,
    Failed { status: Option<u16>, error: String },
}

impl CallResult {
    /// Outcome of an attempt; `retry_after` is the delay of the next one after a failure.
    pub fn into_outcome(self, retry_after: Option<Duration>) -> DeliveryOutcome {
        match self {
            Self::Delivered(response_status) => DeliveryOutcome::Delivered { response_status },
            Self::Gone => DeliveryOutcome::Gone,
            Self::Failed { status, error } => DeliveryOutcome::Failed { response_status: status, error, retry_after },
        }
    }
}

impl WebhookClient {
    /// Client without proxy: a proxy would resolve the names again.
    pub fn new(policy: AddressPolicy, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_connections(0)
            .timeout_global(Some(timeout))
            .max_response_header_size(16 * 1024)
            .user_agent(concat!("espalier/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .accept_encoding("identity")
            .build();
        let resolver = CheckingResolver { policy: Arc::new(policy) };
        Self { agent: Agent::with_parts(config, DefaultConnector::default(), resolver) }
    }

    /// Sends a delivery. Any 2xx status is a success; the response's body is not read.
    ///
    /// # Errors
    /// `Internal` for a malformed secret.
    pub fn call(&self, delivery: &ClaimedDelivery) -> Result<CallResult> {
        let (id, timestamp) = (delivery.id.to_string(), delivery.now.timestamp());
        let body = delivery.payload.to_string();
        let signature = signature::sign(&delivery.secret, &id, timestamp, &body)?;
        let response = self
            .agent
            .post(&delivery.url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature)
            .send(body);
        Ok(match response.map(|response| response.status()) {
            Ok(status) if status.is_success() => CallResult::Delivered(status.as_u16()),
            Ok(StatusCode::GONE) => CallResult::Gone,
            Ok(status) => {
                CallResult::Failed { status: Some(status.as_u16()), error: format!("the endpoint answered {status}") }
            }
            Err(error) => CallResult::Failed { status: None, error: error.to_string() },
        })
    }
}

/// Resolves a name, and refuses it if one of its addresses may not be called.
#[derive(Debug)]
struct CheckingResolver {
    policy: Arc<AddressPolicy>,
}

impl Resolver for CheckingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = DefaultResolver::default().resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        match addresses.iter().all(|address| self.policy.allows(host, address.ip())) {
            true => Ok(addresses),
            false => Err(ureq::Error::Other(REFUSED_ADDRESS.into())),
        }
    }
}

/// Checks the form of a webhook's URL, and its address if the URL names one. Names are resolved at each call.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check_url(url: &str, policy: &AddressPolicy) -> std::result::Result<(), &'static str> {
    const MAX_URL_LENGTH: usize = 2048;
    if url.len() > MAX_URL_LENGTH {
        return Err("is longer than 2048 characters: shorten it");
    }
    let uri: Uri = url.parse().map_err(|_| "is not a URL: send one such as https://example.com/hooks")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with https:// or http://");
    }
    let authority = uri.authority().ok_or("names no host: send a URL such as https://example.com/hooks")?;
    if authority.as_str().contains('@') {
        return Err("holds a user name or password: leave it out, and check the signature instead");
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address.is_ok_and(|address| !policy.allows(host, address)) {
        true => Err(
            "is an address inside a network, which this server does not call: its operator can allow it with --webhook-allow",
        ),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use uuid::Uuid;

    fn delivery(url: &str) -> ClaimedDelivery {
        ClaimedDelivery {
            id: Uuid::now_v7(),
            webhook_id: Uuid::now_v7(),
            url: url.to_string(),
            secret: signature::new_secret().unwrap(),
            payload: serde_json::json!({"type": "webhook.test"}),
            attempt: 1,
            now: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        }
    }

    fn call(allow: &[&str], url: &str) -> CallResult {
        let policy = AddressPolicy::parse(allow.iter().copied()).unwrap();
        WebhookClient::new(policy, Duration::from_secs(5)).call(&delivery(url)).unwrap()
    }

    /// Answers one request after another with `response`; sends the text of each to the receiver.
    fn serve(response: &'static str) -> (u16, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = vec![0; 8192];
                let mut text = String::new();
                while !text.contains("webhook.test") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
                    }
                }
                let _ = sender.send(text);
                let _ = stream.write_all(response.as_bytes());
            }
        });
        (port, requests)
    }

    #[test]
    fn every_spelling_of_a_private_address_is_refused() {
        let (port, requests) = serve("HTTP/1.1 204 No Content\r\n\r\n");
        let hosts = [
            "127.0.0.1",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "127.1",
            "0",
            "0.0.0.0",
            "2130706433",
            "0x7f000001",
            "017700000001",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
        ];
        for host in hosts {
            let result = call(&[], &format!("http://{host}:{port}/hook"));
            assert!(matches!(result, CallResult::Failed { status: None, .. }), "{host}: {result:?}");
        }
        let result = call(&[], &format!("http://localhost:{port}/hook"));
        assert!(matches!(result, CallResult::Failed { error, .. } if error.contains(REFUSED_ADDRESS)));
        assert!(requests.try_recv().is_err(), "no request has left");
        assert_eq!(call(&["127.0.0.0/8"], &format!("http://127.0.0.1:{port}/hook")), CallResult::Delivered(204));
        assert!(requests.recv().unwrap().starts_with("POST /hook HTTP/1.1\r\n"));
    }

    #[test]
    fn redirects_are_not_followed() {
        let (target, requests) = serve("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let redirect = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{target}/\r\ncontent-length: 0\r\n\r\n"
        );
        let (port, _) = serve(Box::leak(redirect.into_boxed_str()));
        let result = call(&["127.0.0.1"], &format!("http://127.0.0.1:{port}/hook"));
        assert!(matches!(result, CallResult::Failed { status: Some(307), .. }), "{result:?}");
        assert!(requests.try_recv().is_err());
    }

    #[test]
    fn status_decides_and_an_endless_response_does_not_block() {
        let (port, _) = serve("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(call(&["127.0.0.1"], &format!("http://127.0.0.1:{port}/")), CallResult::Gone);
        let (port, _) = serve("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\nx");
        assert_eq!(call(&["127.0.0.1"], &format!("http://127.0.0.1:{port}/")), CallResult::Delivered(200));
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let result = call(&["127.0.0.1"], &format!("http://127.0.0.1:{unused}/"));
        assert!(matches!(result, CallResult::Failed { status: None, .. }), "{result:?}");
    }

    #[test]
    fn url_is_checked_before_it_is_stored() {
        let policy = AddressPolicy::default();
        assert_eq!(check_url("https://example.com:8443/hooks?x=1", &policy), Ok(()));
        for url in [
            "example.com",
            "ftp://example.com/",
            "https://",
            "https://user:pass@example.com/",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://169.254.169.254/latest/meta-data/",
            "https://exa mple.com/",
            &format!("https://example.com/{}", "x".repeat(2048)),
        ] {
            assert!(check_url(url, &policy).is_err(), "{url}");
        }
        assert_eq!(check_url("http://10.0.0.1/", &AddressPolicy::parse(["10.0.0.0/8"]).unwrap()), Ok(()));
    }
}
