//! Passes the requests of a connection to the router.

use super::limiter::{ConnectionSlot, RequestGuard};
use super::request_stream::RefusedRequest;
use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;
use crate::http::guarded_body::GuardedBody;
use crate::http::request_path;
use axum::Router;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Extension of requests that the connection refuses: the error to answer.
#[derive(Clone)]
pub enum Rejection {
    /// The connection is beyond the limit.
    TooManyConnections,
    /// The request is malformed, too large or too slow.
    InvalidRequest(ApiError),
}

/// Calls the router and counts the requests in flight.
pub struct ConnectionService {
    router: TowerToHyperService<Router>,
    pub slot: Arc<ConnectionSlot>,
    client_address: Option<ClientAddress>,
    /// Number of requests so far.
    requests: AtomicU64,
    /// Request that the stream refuses.
    pub refused: Arc<Mutex<Option<RefusedRequest>>>,
}

impl ConnectionService {
    pub fn new(router: Router, slot: ConnectionSlot, client_address: Option<ClientAddress>) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            slot: Arc::new(slot),
            client_address,
            requests: AtomicU64::new(0),
            refused: Arc::default(),
        }
    }

    /// Counts a request, and returns why it is refused.
    fn rejection(&self) -> Option<Rejection> {
        let index = self.requests.fetch_add(1, Ordering::Relaxed);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match &*refused {
            Some(refused) if refused.index == index => Some(Rejection::InvalidRequest(refused.error.clone())),
            _ => self.slot.is_beyond_limit().then_some(Rejection::TooManyConnections),
        }
    }
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<GuardedBody<RequestGuard>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let guard = self.slot.start_request();
        request_path::normalize(&mut request);
        if let Some(address) = self.client_address {
            request.extensions_mut().insert(address);
        }
        if let Some(rejection) = self.rejection() {
            request.extensions_mut().insert(rejection);
        }
        let response = self.router.call(request);
        Box::pin(async move { Ok(response.await?.map(|body| GuardedBody::new(body, guard))) })
    }
}
