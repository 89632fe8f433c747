//! `ResponseFuture`.

use std::{fmt, pin::Pin, sync::Arc};

use http::{Request, response};
use pin_project::{pin_project, pinned_drop};
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::after_response::{AfterResponse, Unshareable, Write};
use crate::{
    exchange::{Again, Desk, Oneshot, Seat, Waiter},
    flights::Shared,
    key::KeyExtractor,
    observe::Wait,
    role::Way,
};

/// The response of a [`Singleflight`](crate::Singleflight) service.
///
/// # Cancel safety
///
/// Dropping it leaves the flight and harms no other caller. The last caller's leaving drops the inner call and frees the
/// key at once, unless [`finish_abandoned`](crate::SingleflightLayer::finish_abandoned) is set.
///
/// # Panics
///
/// Polling it panics if the inner service did, and if it is polled again after it has given its response.
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
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
    /// A call of its own.
    Own {
        #[pin]
        call: Oneshot<S, ReqBody>,
        way: Way,
        after: AfterResponse,
        /// [If needed](Shared::if_needed).
        shared: Option<Arc<Shared<X>>>,
    },
    Lead {
        shared: Option<Arc<Shared<X>>>,
        seat: Option<Seat<X::Key>>,
        desk: Arc<Desk<ResBody, S::Error>>,
        way: Way,
    },
    Begin {
        shared: Option<Arc<Shared<X>>>,
        seat: Option<Seat<X::Key>>,
        head: Arc<response::Parts>,
        /// If it may have to.
        again: Option<Again<S, X, ReqBody>>,
    },
    Wait {
        waiter: Arc<Waiter<S, X, ReqBody, ResBody>>,
        /// How often the caller has moved on from other flights.
        moves: u8,
        since: Wait,
        deadline: Option<Instant>,
        /// Made when it is first needed.
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
    pub(crate) fn bypassed(
        shared: &Arc<Shared<X>>,
        call: Oneshot<S, ReqBody>,
        way: Way,
        write: Option<Write>,
    ) -> Self {
        let after = write.map_or(AfterResponse::Nothing, AfterResponse::Write);
        let state = State::own(shared, call, way, after);
        Self { state }
    }

    /// Could not join a flight. `unshareable`: because of its key.
    pub(crate) fn apart(
        shared: &Arc<Shared<X>>,
        call: Oneshot<S, ReqBody>,
        unshareable: Option<Unshareable>,
    ) -> Self {
        let after = unshareable.map_or(AfterResponse::Nothing, AfterResponse::Unshareable);
        let state = State::own(shared, call, Way::Apart, after);
        Self { state }
    }

    pub(crate) fn lead(
        shared: &Arc<Shared<X>>,
        seat: Seat<X::Key>,
        desk: Arc<Desk<ResBody, S::Error>>,
        way: Way,
    ) -> Self {
        let state = State::lead(shared, seat, desk, way);
        Self { state }
    }

    pub(crate) fn begin(
        shared: &Arc<Shared<X>>,
        seat: Seat<X::Key>,
        head: Arc<response::Parts>,
        again: Option<Again<S, X, ReqBody>>,
    ) -> Self {
        let state = State::begin(shared, seat, head, again);
        Self { state }
    }

    pub(crate) fn wait(waiter: Arc<Waiter<S, X, ReqBody, ResBody>>, moves: u8) -> Self {
        // The clock is read only where somebody wants it.
        let timeout = waiter.shared().settings.wait_timeout;
        let deadline = timeout.and_then(|wait| Instant::now().checked_add(wait));
        let state = State::Wait {
            waiter,
            moves,
            since: Wait::begin(),
            deadline,
            sleep: None,
        };
        Self { state }
    }
}

// ===== impl State =====

impl<S, X, ReqBody, ResBody> State<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    pub(super) fn own(
        shared: &Arc<Shared<X>>,
        call: Oneshot<S, ReqBody>,
        way: Way,
        after: AfterResponse,
    ) -> Self {
        let shared = shared.if_needed(&after);
        Self::Own {
            call,
            way,
            after,
            shared,
        }
    }

    pub(super) fn lead(
        shared: &Arc<Shared<X>>,
        seat: Seat<X::Key>,
        desk: Arc<Desk<ResBody, S::Error>>,
        way: Way,
    ) -> Self {
        Self::Lead {
            shared: shared.if_needed(&AfterResponse::Nothing),
            seat: Some(seat),
            desk,
            way,
        }
    }

    pub(super) fn begin(
        shared: &Arc<Shared<X>>,
        seat: Seat<X::Key>,
        head: Arc<response::Parts>,
        again: Option<Again<S, X, ReqBody>>,
    ) -> Self {
        Self::Begin {
            shared: shared.if_needed(&AfterResponse::Nothing),
            seat: Some(seat),
            head,
            again,
        }
    }
}

#[pinned_drop]
impl<S, X, ReqBody, ResBody> PinnedDrop for ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    fn drop(self: Pin<&mut Self>) {
        if let StateProj::Wait { waiter, .. } = self.project().state.project() {
            waiter.leave();
        }
    }
}

impl<S, X, ReqBody, ResBody> fmt::Debug for ResponseFuture<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Own { .. } => "Own",
            State::Lead { .. } => "Lead",
            State::Begin { .. } => "Begin",
            State::Wait { .. } => "Wait",
            State::Done => "Done",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
