//! What the store keeps, as plain data: the semantics of its scripts, for models and the store in memory.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    id::{Digest, FlightId, Inbox},
    message::Address,
    protocol::{Reply, Time},
};

/// Leases and values, each until some time.
#[derive(Debug, Default)]
pub(crate) struct StoreContents {
    leases: HashMap<Digest, Lease>,
    values: HashMap<FlightId, (Bytes, Time)>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    inbox: Inbox,
    flight: FlightId,
    until: Time,
}

// ===== impl StoreContents =====

impl StoreContents {
    /// The script of a contender at `inbox`: takes the lease until `until`, or has `publish` send the join to whoever holds it,
    /// which gives how many heard it, or `None` where that is not known.
    pub(crate) fn contend(
        &mut self,
        join: &Address,
        inbox: Inbox,
        pass_over: Option<FlightId>,
        (now, until): (Time, Time),
        publish: impl FnOnce(Inbox, FlightId) -> Option<usize>,
    ) -> Reply {
        let mut over = false;
        let lease = self.lease(join.digest, now);
        if let Some(lease) = lease.filter(|lease| lease.inbox != inbox) {
            over = true;
            if pass_over != Some(lease.flight) && publish(lease.inbox, lease.flight) != Some(0) {
                return Reply::Held {
                    inbox: lease.inbox,
                    flight: lease.flight,
                };
            }
        }
        let flight = join.flight;
        let lease = Lease {
            inbox,
            flight,
            until,
        };
        self.leases.insert(join.digest, lease);
        Reply::Won { over }
    }

    fn lease(&self, digest: Digest, now: Time) -> Option<Lease> {
        let lease = self.leases.get(&digest).copied();
        lease.filter(|lease| lease.until > now)
    }

    /// Whether the lease is that flight's.
    pub(crate) fn names(&self, digest: Digest, flight: FlightId, now: Time) -> bool {
        self.lease(digest, now)
            .is_some_and(|lease| lease.flight == flight)
    }

    /// `false` where the lease is not that flight's any more.
    pub(crate) fn renew(
        &mut self,
        digest: Digest,
        flight: FlightId,
        (now, until): (Time, Time),
    ) -> bool {
        match self.leases.get_mut(&digest) {
            Some(lease) if lease.until > now && lease.flight == flight => {
                lease.until = until;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn release(&mut self, digest: Digest, flight: FlightId) {
        if self
            .leases
            .get(&digest)
            .is_some_and(|lease| lease.flight == flight)
        {
            self.leases.remove(&digest);
        }
    }

    pub(crate) fn forget(&mut self, digest: Digest) {
        self.leases.remove(&digest);
    }

    pub(crate) fn put(&mut self, flight: FlightId, body: Bytes, until: Time) {
        self.values.insert(flight, (body, until));
    }

    pub(crate) fn fetch(&self, flight: FlightId, now: Time) -> Option<Bytes> {
        let (body, until) = self.values.get(&flight)?;
        (*until > now).then(|| body.clone())
    }

    pub(crate) fn delete(&mut self, flight: FlightId) {
        self.values.remove(&flight);
    }

    /// How many keys there are.
    pub(crate) fn len(&self, now: Time) -> usize {
        let leases = self.leases.values().filter(|lease| lease.until > now);
        let values = self.values.values().filter(|(_, until)| *until > now);
        leases.count() + values.count()
    }
}
