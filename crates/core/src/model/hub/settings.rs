//! Settings of the hub, from the environment variables of Hugging Face's tools.

use std::fmt;
use std::path::PathBuf;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Address, credentials and cache of the hub.
#[derive(Clone)]
pub struct Settings {
    /// `HF_ENDPOINT`; by default the public hub.
    pub endpoint: String,
    /// `HF_TOKEN`.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`.
    pub network: NetworkMode,
    /// `HF_HUB_CACHE`, or `HF_HOME`/hub, or `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    Online,
    Offline,
}

impl Settings {
    /// Reads the environment through `variable`. Empty variables count as unset.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let non_empty =
            |name: &str| variable(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let home = non_empty("HOME").map_or_else(PathBuf::new, PathBuf::from);
        let path_variable = |name: &str| {
            non_empty(name).map(|path| match path.strip_prefix("~/") {
                Some(relative) => home.join(relative),
                None => PathBuf::from(path),
            })
        };
        let cache_home = || path_variable("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hf_home = || path_variable("HF_HOME").unwrap_or_else(|| cache_home().join("huggingface"));
        let offline = non_empty("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true"));
        Self {
            endpoint: non_empty("HF_ENDPOINT")
                .map_or(DEFAULT_ENDPOINT.into(), |url| url.trim_end_matches('/').to_string()),
            token: non_empty("HF_TOKEN"),
            network: if offline { NetworkMode::Offline } else { NetworkMode::Online },
            cache: path_variable("HF_HUB_CACHE").unwrap_or_else(|| hf_home().join("hub")),
        }
    }
}

/// Hides the token.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("network", &self.network)
            .field("cache", &self.cache)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_from(variables: &[(&str, &str)]) -> Settings {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        Settings::from_env(get)
    }

    #[test]
    fn cache_folder_follows_hugging_face_variables() {
        let cache = |variables: &[(&str, &str)]| settings_from(variables).cache.display().to_string();
        assert_eq!(cache(&[("HOME", "/home/a")]), "/home/a/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]), "/c/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/home/a"), ("HF_HOME", "~/hf")]), "/home/a/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")]), "/models");
    }

    #[test]
    fn defaults_to_public_hub() {
        let settings = settings_from(&[("HF_TOKEN", ""), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(
            (settings.endpoint.as_str(), settings.token, settings.network),
            (DEFAULT_ENDPOINT, None, NetworkMode::Online)
        );
        let settings =
            settings_from(&[("HF_ENDPOINT", "http://mirror/"), ("HF_TOKEN", "hf_a\n"), ("HF_HUB_OFFLINE", "True")]);
        assert_eq!((settings.endpoint.as_str(), settings.token.as_deref()), ("http://mirror", Some("hf_a")));
        assert_eq!(settings.network, NetworkMode::Offline);
    }

    #[test]
    fn debug_output_hides_token() {
        let shown = format!("{:?}", settings_from(&[("HF_TOKEN", "hf_secret")]));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
