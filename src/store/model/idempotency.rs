//! Requests with an idempotency key.

use uuid::Uuid;

/// Identity of a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    pub owner: String,
    /// SHA-256 of the idempotency key, hexadecimal.
    pub key_hash: String,
    /// SHA-256 of the method, the path and the query, hexadecimal.
    pub request_hash: String,
    /// Id of the object that the request creates, if this is its first attempt.
    pub object_id: Uuid,
    /// Instance of the process that carries the request out.
    pub instance_id: Uuid,
}

/// Right to finish a request while `epoch` is the epoch of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestClaim {
    pub owner: String,
    pub key_hash: String,
    /// Number of the attempt, from 1.
    pub epoch: i64,
    /// Id of the object that the request creates; every attempt has the same.
    pub object_id: Uuid,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestStart {
    /// Carry it out.
    Started(RequestClaim),
    /// Another attempt is being carried out.
    InFlight,
    /// The key belongs to a request with another method, path or query.
    OtherRequest,
    /// It has been carried out.
    Finished(FinishedRequest),
}

/// Request that has been carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedRequest {
    /// SHA-256 of its body, hexadecimal.
    pub body_hash: String,
    pub response: StoredResponse,
}

/// Response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// `None` if it is too large or must not be stored.
    pub body: Option<String>,
}
