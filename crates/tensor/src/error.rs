//! Errors of tensor operations.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Error {
    /// This build or machine lacks the requested device or weight format. `code` is a fixed word for programs, `detail` says
    /// what to do.
    Unsupported { code: &'static str, detail: String },
    /// A device, a driver or the operating system failed.
    Internal(anyhow::Error),
}

impl Error {
    pub(crate) fn unsupported(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Unsupported { code, detail: detail.into() }
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        Self::Internal(anyhow::anyhow!("{message}"))
    }

    /// Fixed error code; `internal` for failures of the machine.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsupported { code, .. } => code,
            Self::Internal(_) => "internal",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { detail, .. } => write!(f, "{detail}"),
            Self::Internal(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for Error {}

/// Adds the name of the failed operation to an error of another crate.
pub(crate) trait Context<T> {
    fn context(self, doing: &'static str) -> Result<T>;
}

impl<T, E> Context<T> for std::result::Result<T, E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    fn context(self, doing: &'static str) -> Result<T> {
        self.map_err(|error| Error::Internal(anyhow::Error::new(error).context(doing)))
    }
}
