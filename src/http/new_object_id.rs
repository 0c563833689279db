//! Id of the object that a request creates.

use crate::store::RequestClaim;
use espalier_core::error::{Error, Result};
use uuid::Uuid;

/// Id of the object that a request creates: that of its idempotency key, or a new one.
#[derive(Debug, Clone, Copy)]
pub struct NewObjectId {
    id: Uuid,
    has_earlier_attempt: bool,
}

impl NewObjectId {
    /// Id of the object of an attempt.
    pub fn of(claim: &RequestClaim) -> Self {
        Self { id: claim.object_id, has_earlier_attempt: claim.epoch > 1 }
    }

    /// Id of an object that no idempotency key names.
    pub fn random() -> Self {
        Self { id: Uuid::now_v7(), has_earlier_attempt: false }
    }

    pub fn get(self) -> Uuid {
        self.id
    }

    /// Finds the object that an earlier attempt of the request has created; `find` looks for it and is not run for a first attempt.
    ///
    /// # Errors
    /// Those of `find`, except `NotFound`.
    pub async fn find_created<T>(self, find: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        match self.has_earlier_attempt {
            false => Ok(None),
            true => match find.await {
                Ok(object) => Ok(Some(object)),
                Err(Error::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}
