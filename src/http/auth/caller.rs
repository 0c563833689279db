//! The caller of a request, as handlers see it.

use super::credential::Credential;
use crate::http::error::{ApiError, ApiResult};
use crate::http::new_object_id::NewObjectId;
use crate::store::{DatasetLimits, OwnerLimits, Reference, Store, adapter_not_found};
use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use espalier_core::error::{Error, Result};
use std::sync::Arc;

/// Owner on whose behalf a request is handled, and its credential.
#[derive(Debug, Clone)]
pub struct Caller {
    pub owner: String,
    pub credential: Arc<Credential>,
    /// Id of the object that the call creates.
    pub new_object_id: NewObjectId,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        Ok(Self::of(&parts.extensions)?)
    }
}

impl Caller {
    /// Caller of a request that has passed the authentication.
    ///
    /// # Errors
    /// `Internal` on a route without that middleware.
    pub fn of(extensions: &Extensions) -> Result<Self> {
        extensions.get::<Self>().cloned().ok_or_else(|| {
            Error::internal("a route with the Caller extractor is missing the authentication middleware")
        })
    }

    pub fn new(credential: Arc<Credential>) -> Self {
        Self { owner: credential.owner.name.clone(), credential, new_object_id: NewObjectId::random() }
    }

    pub fn limits(&self) -> &OwnerLimits {
        &self.credential.owner.limits
    }

    pub fn dataset_limits(&self) -> DatasetLimits {
        DatasetLimits { bytes: self.limits().dataset_bytes, rows: self.limits().dataset_rows }
    }

    /// Counts the tokens of a request.
    pub fn charge_tokens(&self, tokens: u64) {
        self.credential.limiter.charge_tokens(tokens);
        self.credential.owner.limiter.charge_tokens(tokens);
    }

    /// Parses a reference to an adapter that the caller's key may use.
    ///
    /// # Errors
    /// `Invalid` (`invalid_version`); `NotFound` for an adapter whose name the key does not allow, as if it did not exist.
    pub async fn adapter_reference(&self, store: &dyn Store, text: &str) -> Result<Reference> {
        let reference = Reference::parse(text)?;
        self.check_adapter(store, &reference).await?;
        Ok(reference)
    }

    /// As [`Self::adapter_reference`], for a reference that is parsed already.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn check_adapter(&self, store: &dyn Store, reference: &Reference) -> Result<()> {
        if self.credential.adapters.is_none() {
            return Ok(());
        }
        let is_allowed = match reference {
            Reference::Id(_) => {
                let adapter = store.resolve_adapter(&self.owner, reference).await?;
                self.allows(&adapter.owner, adapter.name.as_deref())
            }
            Reference::Name(name) | Reference::Version(name, _) => self.allows(&self.owner, Some(name)),
            Reference::OfOwner(owner, shared) => match shared.as_ref() {
                Reference::Name(name) | Reference::Version(name, _) => self.allows(owner, Some(name)),
                Reference::Id(_) | Reference::OfOwner(..) => false,
            },
        };
        if is_allowed { Ok(()) } else { Err(adapter_not_found(reference)) }
    }

    /// Whether the key may use an adapter. The name of an adapter that another owner shares begins with that owner and a slash.
    pub fn allows(&self, owner: &str, name: Option<&str>) -> bool {
        match name {
            _ if self.credential.adapters.is_none() => true,
            None => false,
            Some(name) if owner == self.owner => self.credential.allows_adapter(name),
            Some(name) => self.credential.allows_adapter(&format!("{owner}/{name}")),
        }
    }

    /// Checks the name of an adapter that the caller creates.
    ///
    /// # Errors
    /// `Invalid` if the key is restricted to other names.
    pub fn check_new_name(&self, name: Option<&str>) -> Result<()> {
        if self.allows(&self.owner, name) {
            return Ok(());
        }
        let patterns = self.credential.adapters.iter().flatten().map(|pattern| pattern.0.as_str());
        let patterns = patterns.collect::<Vec<_>>().join(", ");
        Err(Error::invalid_field("/name", format!("your key may use adapters with these names alone: {patterns}")))
    }
}
