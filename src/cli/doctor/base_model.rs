//! Whether the base model is there and loads.

use super::CheckResult;
use crate::cli::serve::load_base_model;
use crate::config::Settings;
use espalier_core::model::hub::{self, NetworkMode};
use std::time::Instant;

const SUBJECT: &str = "base model";

pub fn check(settings: &Settings) -> CheckResult {
    let offline = hub::Settings { network: NetworkMode::Offline, ..settings.hub.clone() };
    if let Err(error) = hub::locate(&settings.model, &offline) {
        let downloadable = settings.hub.network == NetworkMode::Online && error.code() == "base_model_not_cached";
        return match downloadable {
            false => CheckResult::from_error(SUBJECT, &error),
            true => CheckResult::warn(
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
    match load_base_model(&Settings { hub: offline, ..settings.clone() }) {
        Err(error) => CheckResult::from_error(SUBJECT, &error),
        Ok(base) => {
            let info = base.info();
            CheckResult::pass(
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
