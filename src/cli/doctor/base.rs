//! Whether the base model is there and loads.

use super::Finding;
use crate::cli::serve::load;
use crate::config::Settings;
use espalier_core::model::hub::{self, Network};
use std::time::Instant;

const SUBJECT: &str = "base model";

pub fn check(settings: &Settings) -> Finding {
    let here = hub::Settings { network: Network::Offline, ..settings.hub.clone() };
    if let Err(error) = hub::locate(&settings.model, &here) {
        let downloadable = settings.hub.network == Network::Allowed && error.code() == "base_model_not_cached";
        return match downloadable {
            false => Finding::failed(SUBJECT, &error),
            true => Finding::doubtful(
                SUBJECT,
                format!(
                    "{} is not on this machine: the first start downloads it from {}",
                    settings.model, settings.hub.endpoint
                ),
                "`make model` brings the default one without the hub; --model names a folder",
            ),
        };
    }
    let started = Instant::now();
    match load(&Settings { hub: here, ..settings.clone() }) {
        Err(error) => Finding::failed(SUBJECT, &error),
        Ok(base) => {
            let info = base.info();
            Finding::good(
                SUBJECT,
                format!(
                    "{} ({}, {:.1} million parameters), loaded in {:.1} s, {}",
                    info.name,
                    info.model_type,
                    info.parameters as f64 / 1e6,
                    started.elapsed().as_secs_f64(),
                    info.fingerprint
                ),
            )
        }
    }
}
