//! What the layer learns from a response that only its caller gets.

use std::{mem, sync::Arc};

use http::{
    Uri,
    header::{CONTENT_LOCATION, LOCATION},
    request, response,
};

use crate::{
    audit::Auditor,
    key::KeyExtractor,
    rules,
    shared::{Flights, HostHash, Resource, Shared},
};

pub(crate) enum AfterResponse {
    Nothing,
    /// The key is remembered as unshareable: is it still?
    Unshareable(Unshareable),
    /// Has the write succeeded?
    Write(Write),
    /// Is the response the same as the flight's?
    Audit(Box<Auditor>),
}

/// A request whose key is remembered as unshareable.
pub(crate) struct Unshareable {
    pub(crate) hash: u64,
    pub(crate) has_credentials: bool,
}

/// A request of an unsafe method.
pub(crate) struct Write {
    uri: Uri,
    host: Option<HostHash>,
}

// ===== impl AfterResponse =====

impl AfterResponse {
    /// The auditor, to audit the body too.
    pub(super) fn take_auditor(&mut self) -> Option<Box<Auditor>> {
        match mem::replace(self, Self::Nothing) {
            Self::Audit(auditor) => Some(auditor),
            _ => None,
        }
    }
}

// ===== impl Write =====

impl Write {
    pub(crate) fn new(request: &request::Parts) -> Self {
        Self {
            uri: request.uri.clone(),
            host: HostHash::of(request),
        }
    }

    /// If it has succeeded, its target has changed, and so have those that the response names (RFC 9111 section 4.4).
    fn record<K>(&self, response: &response::Parts, flights: &Flights<K>) {
        if !rules::invalidates(response.status) {
            return;
        }
        let resource = Resource::new(&self.uri, self.host);
        flights.written(&resource);
        for (name, value) in &response.headers {
            if *name == LOCATION || *name == CONTENT_LOCATION {
                if let Some(resource) = resource.resolve(value) {
                    flights.written(&resource);
                }
            }
        }
    }
}

// ===== impl Shared =====

impl<X: KeyExtractor> Shared<X> {
    /// The layer, if the response will need it. Most don't, and all cores write to the count of this `Arc`.
    pub(super) fn if_needed(self: &Arc<Self>, after: &AfterResponse) -> Option<Arc<Self>> {
        let needed = match after {
            AfterResponse::Nothing | AfterResponse::Audit(_) => {
                self.settings.cache_status.is_some()
            }
            AfterResponse::Unshareable(_) | AfterResponse::Write(_) => true,
        };
        // For the role of another replica's response.
        #[cfg(feature = "redis")]
        let needed = needed || self.flights.replicated().is_some();
        needed.then(|| Arc::clone(self))
    }

    /// Learns from a response that only its caller gets.
    pub(super) fn conclude(&self, after: &AfterResponse, response: &response::Parts) {
        match after {
            AfterResponse::Nothing | AfterResponse::Audit(_) => {}
            AfterResponse::Write(write) => write.record(response, &self.flights),
            AfterResponse::Unshareable(key) => {
                if rules::may_share(key.has_credentials, response)
                    && (self.settings.policy)(response)
                {
                    self.flights.unshareable.remove(key.hash);
                }
            }
        }
    }
}
