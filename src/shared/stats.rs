//! What a layer counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    buffer::Budget,
    group::Name,
    observe::{self, CallerSpan, Reason},
    rules::Bypass,
};

const STRIPES: usize = 16;

/// Counters in stripes, spread over the threads, so that cores that serve different keys share no cache line.
#[derive(Debug)]
pub(crate) struct Counters {
    stripes: [Stripe; STRIPES],
    /// The layer's name.
    pub(crate) name: Arc<Name>,
    pub(crate) budget: Arc<Budget>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    led: AtomicU64,
    joined: AtomicU64,
    followed: AtomicU64,
    forwarded: AtomicU64,
    bypassed: AtomicU64,
    audit_same: AtomicU64,
    audit_differed: AtomicU64,
    audit_unknown: AtomicU64,
    /// Raised on one thread and lowered on another: only the wrapping sum over all stripes means anything.
    waiters: AtomicU64,
}

/// What a layer has done so far, and what it holds now. Made by [`Handle::stats`](crate::Handle::stats).
///
/// Each number is exact, but together they are not a snapshot of one instant. The counters start at 0 with the layer
/// and never fall. The inner service has had `led + forwarded + bypassed` calls, minus requests whose caller left
/// before the call and requests that moved on from a large body (`moved_on` in the [metrics](crate#observability)):
/// those count in `forwarded`, and again in what they do next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that were forwarded to the inner service and could be joined.
    pub led: u64,
    /// Requests that joined another's flight, before its head or midway through its body.
    pub joined: u64,
    /// Joined requests that got the head of the copy, counted when their response futures return it. The other joined
    /// requests still wait, were forwarded, have left, or got the flight's failure.
    pub followed: u64,
    /// Requests that could have shared but made their own call: after they had joined, or because they could not join
    /// (`max_waiters`, a key known to be unshareable, or an [audit](crate::SingleflightLayer::audit)).
    pub forwarded: u64,
    /// Requests that are never coalesced, and all requests while the layer is off.
    pub bypassed: u64,
    /// Finished audits: the sum of the next three. See [`SingleflightLayer::audit`](crate::SingleflightLayer::audit).
    pub audited: u64,
    /// Audited requests that got the same response as the flight that they would have joined.
    pub audit_same: u64,
    /// Audited requests that got a different response.
    pub audit_differed: u64,
    /// Audited requests with an unknown result: one of the two responses failed, or its caller left before its end.
    pub audit_unknown: u64,
    /// Flights that a new caller could join.
    pub in_flight: usize,
    /// Callers that have not yet received their whole response, including leaders.
    pub waiters: usize,
    /// Bytes reserved for copies of bodies.
    pub buffered_bytes: usize,
    /// How flights fared across replicas; `None` without [`replicas`](crate::SingleflightLayer::replicas). A flight
    /// that got its response from another replica counts as `led`, although it made no call.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub replicas: Option<crate::ReplicaStats>,
}

/// What happened to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Led,
    Joined,
    Followed,
    Bypassed(Bypass),
    AuditSame,
    /// What differed.
    AuditDiffered(&'static str),
    AuditUnknown,
}

// ===== impl Counters =====

impl Counters {
    pub(crate) fn new() -> Self {
        let name = Arc::default();
        Self {
            stripes: Default::default(),
            budget: Arc::new(Budget::new(Arc::clone(&name))),
            name,
        }
    }

    pub(crate) fn count(&self, event: Event) {
        let (name, stripe) = (&self.name, self.stripe());
        let counter = match event {
            Event::Led => &stripe.led,
            Event::Joined => &stripe.joined,
            Event::Followed => &stripe.followed,
            Event::Bypassed(_) => &stripe.bypassed,
            Event::AuditSame => &stripe.audit_same,
            Event::AuditDiffered(_) => &stripe.audit_differed,
            Event::AuditUnknown => &stripe.audit_unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        match event {
            Event::Led => observe::request(name, "leader", ""),
            // Its role is not known yet.
            Event::Joined => {}
            Event::Followed => observe::request(name, "follower", ""),
            Event::Bypassed(reason) => observe::bypassed(name, reason),
            Event::AuditSame => observe::audited(name, "same", ""),
            Event::AuditDiffered(what) => observe::audited(name, "differed", what),
            Event::AuditUnknown => observe::audited(name, "unknown", ""),
        }
    }

    /// The request of this span makes its own call after all.
    pub(crate) fn forward(&self, span: &CallerSpan, reason: Reason) {
        span.forwarded(&self.name, reason);
        self.stripe().forwarded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self) {
        observe::waiters(&self.name, 1.0);
        self.stripe().waiters.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self, callers: usize) {
        observe::waiters(&self.name, -(callers as f64));
        let waiters = &self.stripe().waiters;
        waiters.fetch_sub(callers as u64, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, in_flight: usize) -> Stats {
        let sum = |counter: fn(&Stripe) -> &AtomicU64| {
            let loads = self
                .stripes
                .iter()
                .map(|it| counter(it).load(Ordering::Relaxed));
            loads.fold(0, u64::wrapping_add)
        };
        let audit_same = sum(|stripe| &stripe.audit_same);
        let audit_differed = sum(|stripe| &stripe.audit_differed);
        let audit_unknown = sum(|stripe| &stripe.audit_unknown);
        Stats {
            led: sum(|stripe| &stripe.led),
            joined: sum(|stripe| &stripe.joined),
            followed: sum(|stripe| &stripe.followed),
            forwarded: sum(|stripe| &stripe.forwarded),
            bypassed: sum(|stripe| &stripe.bypassed),
            audited: audit_same + audit_differed + audit_unknown,
            audit_same,
            audit_differed,
            audit_unknown,
            in_flight,
            waiters: sum(|stripe| &stripe.waiters) as usize,
            buffered_bytes: self.budget.used(),
            #[cfg(feature = "redis")]
            replicas: None,
        }
    }

    fn stripe(&self) -> &Stripe {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        &self.stripes[MINE.with(|mine| *mine)]
    }
}
