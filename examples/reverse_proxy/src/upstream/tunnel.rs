//! Upgrades (RFC 9110 section 7.8), WebSocket above all: two connections tied together.

use http::{
    HeaderMap, HeaderValue, Request, Response, Version,
    header::{CONNECTION, UPGRADE},
};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, on},
};
use hyper_util::rt::TokioIo;

use crate::headers::has_token;

/// A client that asks to leave HTTP behind.
pub(crate) struct Tunnel {
    client: OnUpgrade,
    protocol: HeaderValue,
}

// ===== impl Tunnel =====

impl Tunnel {
    /// `None` if `request` asks for no upgrade, or only for HTTP/2: that is a matter of this connection, and a server may
    /// ignore it.
    pub(crate) fn wanted(request: &mut Request<Incoming>) -> Option<Self> {
        let headers = request.headers();
        let protocol = headers.get(UPGRADE)?.clone();
        let wanted = request.version() == Version::HTTP_11
            && has_token(headers, &CONNECTION, "upgrade")
            && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
        wanted.then(|| Self {
            client: on(request),
            protocol,
        })
    }

    /// Asks the upstream for it, in a head that is stripped of hop-by-hop fields.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        announce(headers, self.protocol.clone());
    }

    /// Ties the connections together once both have switched, and gives the protocol that the upstream chose.
    pub(crate) fn open(self, response: &mut Response<Incoming>) -> HeaderValue {
        let upstream = on(&mut *response);
        tokio::spawn(async move {
            let (client, upstream) = tokio::try_join!(self.client, upstream)?;
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // If it fails one of the two is gone, and there is nobody to tell.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            Ok::<_, hyper::Error>(())
        });
        let chosen = response.headers().get(UPGRADE).cloned();
        chosen.unwrap_or(self.protocol)
    }
}

pub(crate) fn announce(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}
