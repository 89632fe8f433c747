//! Connections that stand for a user.
//!
//! NTLM, and Negotiate with it, authenticate a connection and not a request: what comes over it afterwards is answered for
//! that user, with or without credentials. So a client that uses them gets a connection to the upstream of its own, which
//! lives as long as the client's does. Its requests pass by the layer: nothing in them says whose answer they get.

use std::sync::OnceLock;

use http::{HeaderMap, Request, Response, Uri, header::AUTHORIZATION};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use tokio::sync::Mutex;
use tower::ServiceExt;

use super::{
    RequestBody,
    connection::Connector,
    failure::{Failure, Kind},
};

/// A way to one upstream for one client alone.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    /// The first request chose it.
    pub(super) origin: OnceLock<usize>,
    sender: Mutex<Option<SendRequest<RequestBody>>>,
}

// ===== impl Pinned =====

impl Pinned {
    /// Whether a request makes the connection on which it is sent its user's.
    pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        lines.any(|line| {
            let scheme = line.as_bytes().split(|byte| *byte == b' ').next();
            scheme.is_some_and(|scheme| {
                scheme.eq_ignore_ascii_case(b"NTLM") || scheme.eq_ignore_ascii_case(b"Negotiate")
            })
        })
    }

    /// Sends one request after the other. `request` has the target of a proxy.
    pub(super) async fn send(
        &self,
        connector: &Connector,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut place = self.sender.lock().await;
        let open = match place.as_mut() {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !open {
            *place = Some(connect(connector, request.uri().clone()).await?);
        }
        if let Some(target) = request.uri().path_and_query() {
            *request.uri_mut() = Uri::from(target.clone());
        }
        let sender = place.as_mut().expect("it was put there");
        let response = sender.send_request(request).await;
        response.map_err(|error| Failure::new(Kind::BrokeOff, &error))
    }
}

async fn connect(connector: &Connector, to: Uri) -> Result<SendRequest<RequestBody>, Failure> {
    let io = connector.clone().oneshot(to).await;
    let io = io.map_err(|error| Failure::new(Kind::Unreachable, &*error))?;
    let (sender, connection) = http1::handshake(io)
        .await
        .map_err(|error| Failure::new(Kind::Unreachable, &error))?;
    tokio::spawn(async move {
        // Its error is that of the request that is on it.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}
