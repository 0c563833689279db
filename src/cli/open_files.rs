//! Limit on open files of the process, and the number of connections that it allows.

use espalier_core::error::{Error, Result};
use rustix::process::{Resource, getrlimit, setrlimit};

/// File descriptors for the database, the model, adapters, jobs and refused connections.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Descriptors of a connection that uploads: its socket and its temporary file.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
const DEFAULT_MAX_CONNECTIONS: u64 = 10_000;

/// Raises the soft limit on open files to the hard limit, and returns it; `None` without a limit.
///
/// Systems set a low soft limit (1024) for programs that use `select`, which this one does not.
pub fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(error = %error, "raising the limit on open files failed");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// Returns the maximum number of connections under a limit on open files.
///
/// # Errors
/// `Invalid` (`too_many_connections`) if the limit does not allow the number that was requested.
pub fn max_connections(requested: Option<usize>, open_files: Option<u64>) -> Result<usize> {
    let open_files = open_files.unwrap_or(u64::MAX);
    // A quarter, where the limit is so low that the reserve would leave nothing.
    let available = open_files - RESERVED_DESCRIPTORS.min(open_files / 4);
    match requested {
        Some(requested) if requested as u64 > available => Err(Error::invalid(
            "too_many_connections",
            format!(
                "--max-connections {requested} is more than this process may open: its limit is {open_files} files, of which \
                 {available} can be connections; raise the limit (`ulimit -n`, LimitNOFILE, --ulimit nofile) or lower the setting"
            ),
        )),
        Some(requested) => Ok(requested),
        None => {
            let default = (available / DESCRIPTORS_PER_CONNECTION).clamp(1, DEFAULT_MAX_CONNECTIONS);
            Ok(usize::try_from(default).unwrap_or(usize::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::Rlimit;

    #[test]
    fn default_leaves_descriptors_for_files() {
        for (open_files, expected) in
            [(Some(1024), 384), (Some(64), 24), (Some(1), 1), (Some(1 << 20), 10_000), (None, 10_000)]
        {
            assert_eq!(max_connections(None, open_files).unwrap(), expected, "{open_files:?}");
        }
    }

    #[test]
    fn more_connections_than_open_files_are_refused() {
        assert_eq!(max_connections(Some(768), Some(1024)).unwrap(), 768);
        let error = max_connections(Some(769), Some(1024)).unwrap_err().to_string();
        assert!(error.contains("--max-connections 769") && error.contains("ulimit"), "{error}");
        assert_eq!(max_connections(Some(1_000_000), None).unwrap(), 1_000_000);
    }

    #[test]
    fn soft_limit_becomes_the_hard_limit() {
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: hard }).unwrap();
        assert_eq!(raise_limit(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
