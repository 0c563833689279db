//! The settings that Hugging Face's own tools share.

use std::fmt;
use std::path::PathBuf;

const PUBLIC_HUB: &str = "https://huggingface.co";

/// Where the hub is and what may be asked of it; read from the environment by `config`.
#[derive(Clone)]
pub struct Settings {
    /// `HF_ENDPOINT`, by default the public hub.
    pub endpoint: String,
    /// `HF_TOKEN`.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`.
    pub network: Network,
    /// `HF_HUB_CACHE`, or `HF_HOME`/hub, or `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Allowed,
    Offline,
}

impl Settings {
    /// Reads the variables through `get`; an empty one counts as not set.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let home = get("HOME").map_or_else(PathBuf::new, PathBuf::from);
        let folder = |name: &str| {
            get(name).map(|path| match path.strip_prefix("~/") {
                Some(rest) => home.join(rest),
                None => PathBuf::from(path),
            })
        };
        let user_cache = || folder("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hub_home = || folder("HF_HOME").unwrap_or_else(|| user_cache().join("huggingface"));
        let offline = get("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true"));
        Self {
            endpoint: get("HF_ENDPOINT").map_or(PUBLIC_HUB.into(), |url| url.trim_end_matches('/').to_string()),
            token: get("HF_TOKEN"),
            network: if offline { Network::Offline } else { Network::Allowed },
            cache: folder("HF_HUB_CACHE").unwrap_or_else(|| hub_home().join("hub")),
        }
    }
}

/// Never shows the token.
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

    fn read(variables: &[(&str, &str)]) -> Settings {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        Settings::from_environment(get)
    }

    #[test]
    fn the_cache_is_where_hugging_faces_tools_have_it() {
        let cache = |variables: &[(&str, &str)]| read(variables).cache.display().to_string();
        assert_eq!(cache(&[("HOME", "/home/a")]), "/home/a/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]), "/c/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/home/a"), ("HF_HOME", "~/hf")]), "/home/a/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")]), "/models");
    }

    #[test]
    fn the_public_hub_is_asked_unless_something_else_is_said() {
        let settings = read(&[("HF_TOKEN", ""), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(
            (settings.endpoint.as_str(), settings.token, settings.network),
            (PUBLIC_HUB, None, Network::Allowed)
        );
        let settings = read(&[("HF_ENDPOINT", "http://mirror/"), ("HF_TOKEN", "hf_a\n"), ("HF_HUB_OFFLINE", "True")]);
        assert_eq!((settings.endpoint.as_str(), settings.token.as_deref()), ("http://mirror", Some("hf_a")));
        assert_eq!(settings.network, Network::Offline);
    }

    #[test]
    fn the_token_is_not_shown() {
        let shown = format!("{:?}", read(&[("HF_TOKEN", "hf_secret")]));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
