//! A request that may be coalesced: its key, and what else its head says.

use std::any::Any;

use http::{Method, request};
use http_body::Body;

use crate::{
    flights::Shared,
    key::{KeyExtractor, Marks, RequestKey},
    rules::{Bypass, Said},
};

pub(crate) struct Question<K> {
    pub(crate) key: K,
    pub(crate) has_credentials: bool,
    /// What is known of the fields in which an identical request may differ.
    pub(crate) marks: Marks,
}

// ===== impl Question =====

impl<K: 'static> Question<K> {
    /// `Err`: why the request must make its own call.
    pub(crate) fn of<X, B>(
        shared: &Shared<X>,
        request: &request::Parts,
        body: &B,
    ) -> Result<Self, Bypass>
    where
        X: KeyExtractor<Key = K>,
        B: Body,
    {
        if !shared.flights.is_enabled() {
            return Err(Bypass::Disabled);
        }
        let has_body = |said: &Said| said.has_body(body.is_end_stream(), body.size_hint().exact());
        let mut marks = Marks::default();
        let mut said = Said::default();
        // The default key is made in the pass in which the rules look at the fields.
        let own = match shared.default_key() {
            Some(default) if !default.coalesces(&request.method) => return Err(Bypass::Method),
            Some(default) => {
                let key = default.read(request, |name, value, may_differ| {
                    said.note(name, value);
                    marks.push(may_differ);
                });
                cast(key)
            }
            None => {
                said = Said::by(&request.headers);
                None
            }
        };
        if let Some(bypass) = said.bypass(&request.method, has_body(&said)) {
            return Err(bypass);
        }
        match own.or_else(|| shared.extractor.extract(request)) {
            Some(key) => Ok(Self {
                key,
                has_credentials: said.credentials,
                marks,
            }),
            None if matches!(request.method, Method::GET | Method::HEAD) => Err(Bypass::NoKey),
            None => Err(Bypass::Method),
        }
    }
}

/// The default key's type is not named where any may stand.
fn cast<K: 'static>(key: RequestKey) -> Option<K> {
    let mut key = Some(key);
    let key: &mut dyn Any = &mut key;
    key.downcast_mut::<Option<K>>()?.take()
}
