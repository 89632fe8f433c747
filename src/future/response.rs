//! `ResponseFuture`.

use std::{fmt, pin::Pin, sync::Arc};

use http::{Request, response};
use pin_project::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::after_response::AfterResponse;
use crate::{
    flight::{Again, Caller, Follower, Leader, Oneshot},
    key::KeyExtractor,
    observe::WaitTimer,
    role::Disposition,
    shared::Shared,
};

/// The response of a [`Singleflight`](crate::Singleflight) service.
///
/// # Cancel safety
///
/// Dropping it leaves the flight and harms no other caller. When the last caller leaves, the inner call is dropped and
/// the key is free at once, unless [`finish_abandoned`](crate::SingleflightLayer::finish_abandoned) is set.
///
/// # Panics
///
/// Polling it panics if the inner service panicked, and if it has already returned its response.
#[pin_project]
#[must_use = "dropping it leaves the flight at once: `.await` it for the response"]
pub struct ResponseFuture<S, X, ReqBody, ResBody>
where
    // The states hold the service's future and its error, and the key's type.
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    #[pin]
    pub(super) state: State<S, X, ReqBody, ResBody>,
}

#[pin_project(project = StateProj)]
pub(super) enum State<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    /// Its own call.
    Own {
        #[pin]
        call: Oneshot<S, ReqBody>,
        disposition: Disposition,
        after: AfterResponse,
        /// [If needed](Shared::if_needed).
        shared: Option<Arc<Shared<X>>>,
    },
    Lead {
        shared: Option<Arc<Shared<X>>>,
        leader: Leader<X::Key, ResBody, S::Error>,
        disposition: Disposition,
    },
    Begin {
        shared: Option<Arc<Shared<X>>>,
        caller: Option<Caller<X::Key>>,
        head: Arc<response::Parts>,
        /// If it may have to.
        again: Option<Again<S, X, ReqBody>>,
    },
    Follow {
        follower: Option<Follower<S, X, ReqBody>>,
        since: WaitTimer,
        deadline: Option<Instant>,
        /// Made on first use.
        sleep: Option<Pin<Box<Sleep>>>,
    },
    Done,
}

// ===== impl ResponseFuture =====

impl<S, X, ReqBody, ResBody> ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    /// Makes its own call.
    pub(crate) fn own(
        shared: &Arc<Shared<X>>,
        call: Oneshot<S, ReqBody>,
        disposition: Disposition,
        after: AfterResponse,
    ) -> Self {
        let state = State::Own {
            shared: shared.if_needed(&after),
            call,
            disposition,
            after,
        };
        Self { state }
    }

    pub(crate) fn lead(
        shared: &Arc<Shared<X>>,
        leader: Leader<X::Key, ResBody, S::Error>,
        disposition: Disposition,
    ) -> Self {
        let state = State::Lead {
            shared: shared.if_needed(&AfterResponse::Nothing),
            leader,
            disposition,
        };
        Self { state }
    }

    pub(crate) fn begin(
        shared: &Arc<Shared<X>>,
        caller: Caller<X::Key>,
        head: Arc<response::Parts>,
        again: Option<Again<S, X, ReqBody>>,
    ) -> Self {
        let state = State::Begin {
            shared: shared.if_needed(&AfterResponse::Nothing),
            caller: Some(caller),
            head,
            again,
        };
        Self { state }
    }

    pub(crate) fn follow(follower: Follower<S, X, ReqBody>) -> Self {
        // Read the clock only if something needs it.
        let shared = &follower.own.service.shared;
        let timeout = shared.settings.wait_timeout;
        let since = WaitTimer::begin(&shared.flights.counters.name);
        let deadline = timeout.and_then(|wait| Instant::now().checked_add(wait));
        let state = State::Follow {
            follower: Some(follower),
            since,
            deadline,
            sleep: None,
        };
        Self { state }
    }
}

impl<S, X, ReqBody, ResBody> fmt::Debug for ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
