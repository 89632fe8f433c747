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

/// Counters in stripes, one for each few threads: two cores that serve different keys write no cache line together.
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
    /// Raised on one thread and lowered on another, so that only the sum over all stripes, which wraps, means anything.
    waiters: AtomicUsize,
}

/// What a layer's flights have done so far, and what they hold now. Made by [`Handle::stats`](crate::Handle::stats).
///
/// Each number is exact; together they are no snapshot of one instant while requests go on. The counters begin at 0
/// with the layer value and never fall. The inner service has had `led + forwarded + bypassed` calls, less those whose
/// caller left before, and those that moved on from a large body (`moved_on` in the [metrics](crate#observability)): they count
/// in `forwarded`, and once more in what they do next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that were forwarded to the inner service and could be joined.
    pub led: u64,
    /// Requests that joined another's flight, before its head or midway through its body.
    pub joined: u64,
    /// Of the joined requests, those that got the head of the copy; counted when their response futures gave it. The others
    /// still wait, were forwarded, have left, or got the flight's failure.
    pub followed: u64,
    /// Requests that made their own call after all: of the joined ones those that were sent on, and those that could not
    /// join (`max_waiters`, a key known to be unshareable, or an [audit](crate::SingleflightLayer::audit)).
    pub forwarded: u64,
    /// Requests that were never to be coalesced.
    pub bypassed: u64,
    /// Audits that have come to their end: the sum of the next three. See
    /// [`SingleflightLayer::audit`](crate::SingleflightLayer::audit).
    pub audited: u64,
    /// Audited requests that got the same answer as the flight that they would have joined.
    pub audit_same: u64,
    /// Audited requests that got another answer.
    pub audit_differed: u64,
    /// Audited requests of which that is not known: one of the two answers failed, or its caller left before its end.
    pub audit_unknown: u64,
    /// Flights that a new caller could join.
    pub in_flight: usize,
    /// Callers that have not yet got all that their flight owes them, leaders included.
    pub waiters: usize,
    /// Bytes set aside for the copies of bodies.
    pub buffered_bytes: usize,
    /// What has become of the flights across replicas; `None` without [`replicas`](crate::SingleflightLayer::replicas). A flight
    /// that got its response from another replica is one of `led`, although it made no call.
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
        let stripe = self.stripe();
        let counter = match event {
            Event::Led => {
                observe::led(&self.name);
                &stripe.led
            }
            Event::Joined => &stripe.joined,
            Event::Followed => {
                observe::followed(&self.name);
                &stripe.followed
            }
            Event::Bypassed(reason) => {
                observe::bypassed(&self.name, reason);
                &stripe.bypassed
            }
            Event::AuditSame => {
                observe::audited(&self.name, "same", "");
                &stripe.audit_same
            }
            Event::AuditDiffered(what) => {
                observe::audited(&self.name, "differed", what);
                &stripe.audit_differed
            }
            Event::AuditUnknown => {
                observe::audited(&self.name, "unknown", "");
                &stripe.audit_unknown
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The caller of this span makes its own call after all.
    pub(crate) fn forward(&self, span: &CallerSpan, reason: Reason) {
        span.forwarded(&self.name, reason);
        self.stripe().forwarded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self) {
        observe::waiter_came(&self.name);
        self.stripe().waiters.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self, callers: usize) {
        (0..callers).for_each(|_| observe::waiter_went(&self.name));
        self.stripe().waiters.fetch_sub(callers, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, in_flight: usize) -> Stats {
        let sum = |counter: fn(&Stripe) -> &AtomicU64| {
            let loads = self
                .stripes
                .iter()
                .map(|stripe| counter(stripe).load(Ordering::Relaxed));
            loads.sum()
        };
        let waiters = self
            .stripes
            .iter()
            .map(|stripe| stripe.waiters.load(Ordering::Relaxed));
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
            waiters: waiters.fold(0, usize::wrapping_add),
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
