//! Whether an adapter was made for this base, as far as names and fingerprints can tell.

use super::BaseCard;
use crate::model::Info;

/// Why the adapter is not this base's; `None` where it is. A fingerprint settles it; without one the name has to.
pub fn other_base(card: &BaseCard, info: &Info) -> Option<String> {
    match &card.fingerprint {
        Some(fingerprint) if *fingerprint == info.fingerprint => None,
        Some(fingerprint) => Some(format!(
            "the adapter was made for the base {} ({fingerprint}), this server runs {} ({}): use it on a server with that base",
            card.name, info.name, info.fingerprint
        )),
        None if same(&card.name, &info.name) => None,
        None => Some(format!(
            "the adapter was made for the base {:?}, this server runs {:?}: use it on a server with that base",
            card.name, info.name
        )),
    }
}

/// Equal, or equal in their last part: trainers write the path or the id under which they happened to load the base.
pub fn same(one: &str, other: &str) -> bool {
    let (one, other) = (short(one), short(other));
    !one.is_empty() && one == other
}

/// `all-MiniLM-L6-v2` of a hub id, of a folder on any system, and of a hub cache's `models--org--name/snapshots/…`.
fn short(name: &str) -> &str {
    let segments = || name.split(['/', '\\']).filter(|segment| !segment.is_empty());
    let cached = segments().find_map(|segment| segment.strip_prefix("models--"));
    match cached {
        Some(repository) => repository.rsplit("--").next().unwrap_or(repository),
        None => segments().next_back().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing;

    #[test]
    fn a_name_is_judged_by_its_last_part() {
        let ours = "sentence-transformers/all-MiniLM-L6-v2";
        for name in [
            ours,
            "all-MiniLM-L6-v2",
            "/home/x/all-MiniLM-L6-v2/",
            r"C:\models\all-MiniLM-L6-v2",
            "/cache/models--sentence-transformers--all-MiniLM-L6-v2/snapshots/c9745ed1d9f2",
        ] {
            assert!(same(name, ours), "{name}");
        }
        for name in ["bert-base-uncased", "", "/", "all-MiniLM-L12-v2", "all-MiniLM-L6-v2-tuned"] {
            assert!(!same(name, ours), "{name}");
        }
        assert!(!same("", ""));
    }

    #[test]
    fn a_fingerprint_settles_it_whatever_the_name() {
        let info = testing::outline().info;
        let card = |name: &str, fingerprint: Option<&str>| BaseCard {
            name: name.to_string(),
            fingerprint: fingerprint.map(str::to_string),
        };
        assert_eq!(other_base(&card("somewhere/else", Some(&info.fingerprint)), &info), None);
        assert!(other_base(&card(&info.name, Some("sha256:00")), &info).unwrap().contains("sha256:00"));
        assert_eq!(other_base(&card("/data/tiny-bert", None), &info), None);
        assert!(other_base(&card("/data/other", None), &info).unwrap().contains("/data/other"));
    }
}
