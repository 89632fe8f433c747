//! A request that may be coalesced: its key, and what else its head says.

use std::any::Any;

use http::{Method, request};
use http_body::Body;

use crate::{
    flights::Shared,
    key::{KeyExtractor, MayDiffer, RequestKey},
    rules::{Bypass, RequestFields},
};

pub(crate) struct Question<K> {
    pub(crate) key: K,
    pub(crate) has_credentials: bool,
    pub(crate) may_differ: MayDiffer,
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
        let mut may_differ = MayDiffer::default();
        let mut fields = RequestFields::default();
        // The default key is made in the pass in which the rules look at the fields.
        let own = match shared.default_key() {
            Some(default) if !default.coalesces(&request.method) => return Err(Bypass::Method),
            Some(default) => {
                let key = default.read(request, |name, value, differs| {
                    fields.note(name, value);
                    may_differ.push(differs);
                });
                cast(key)
            }
            None => {
                fields = RequestFields::of(&request.headers);
                None
            }
        };
        let has_body = fields.has_body(body.is_end_stream(), body.size_hint().exact());
        if let Some(bypass) = fields.bypass(&request.method, has_body) {
            return Err(bypass);
        }
        match own.or_else(|| shared.extractor.extract(request)) {
            Some(key) => Ok(Self {
                key,
                has_credentials: fields.credentials,
                may_differ,
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
