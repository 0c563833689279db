//! Authentication and authorization: who calls, for which owner, what the call may do, and how much.
//!
//! A key is sent as a bearer token or, by clients of Azure OpenAI, in `api-key`; a browser that signed in sends the cookie of a session.
//! Without keys every request is accepted. Health checks never need a key, because probes send none; neither do
//! the dashboard's files, `/docs` and `/openapi.yaml`, because a browser cannot send a key when it loads the page and they reveal nothing
//! about this server.

pub mod access;
pub mod audit;
pub mod authenticator;
mod caller;
pub mod credential;
pub mod limits;
pub mod route_scopes;
mod sent_credential;
pub mod session_token;
mod token_bucket;

pub use access::{Access, authorize};
pub use authenticator::{Authentication, Authenticator};
pub use caller::Caller;
pub use sent_credential::{API_KEY, uses_session};
