//! Settings of webhooks.

use super::units;
use crate::worker::webhooks::{AddressPolicy, WebhookSettings};
use clap::Args;
use espalier_core::error::Result;
use std::time::Duration;

#[derive(Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Webhooks")]
pub struct Flags {
    /// Addresses, networks and host names inside the operator's network that webhooks may call, separated by commas, such as
    /// 10.0.0.0/8 or hooks.internal [default: none; only public addresses]
    #[arg(long, env = "ESPALIER_WEBHOOK_ALLOW", value_name = "NETWORKS")]
    pub webhook_allow: Option<String>,

    /// Maximum time of a call
    #[arg(long, env = "ESPALIER_WEBHOOK_TIMEOUT", value_name = "TIME", default_value = "15s", value_parser = units::parse_duration)]
    pub webhook_timeout: Duration,

    /// Number of failed calls in a row after which a webhook is disabled
    #[arg(long, env = "ESPALIER_WEBHOOK_MAX_FAILURES", value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub webhook_max_failures: u32,

    /// Maximum number of webhooks of an owner
    #[arg(long, env = "ESPALIER_MAX_WEBHOOKS", value_name = "N", default_value = "20", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_webhooks: u64,

    /// How long deliveries that have ended are kept
    #[arg(long, env = "ESPALIER_KEEP_DELIVERIES", value_name = "TIME", default_value = "30d", value_parser = units::parse_duration)]
    pub keep_deliveries: Duration,
}

impl Flags {
    /// # Errors
    /// `Invalid` for an entry of `--webhook-allow` that is no address, network or name.
    pub fn resolve(&self) -> Result<WebhookSettings> {
        let allowed = self.webhook_allow.iter().flat_map(|allowed| allowed.split(',')).map(str::trim);
        Ok(WebhookSettings {
            addresses: AddressPolicy::parse(allowed.filter(|entry| !entry.is_empty()))?,
            timeout: self.webhook_timeout,
            max_failures: self.webhook_max_failures,
            max_webhooks: self.max_webhooks,
            keep_deliveries: self.keep_deliveries,
        })
    }
}
