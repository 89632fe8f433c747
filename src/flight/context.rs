//! What the parts of a flight's work share.

use std::{sync::Arc, task::Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

#[cfg(feature = "redis")]
use super::contender::Contender;
use super::{
    leader::{Leader, LeaderRequest, LeaderResponse},
    state::Flight,
};
use crate::{error::SharedError, group::drop_quietly, key::KeyExtractor, shared::Shared};

/// The flight and the leader that the work is for.
pub(super) struct WorkContext<X: KeyExtractor> {
    /// `None` while the flight is solo.
    pub(super) flight: Option<Arc<Flight<X::Key>>>,
    pub(super) shared: Arc<Shared<X>>,
    pub(super) request: LeaderRequest,
    #[cfg(feature = "redis")]
    pub(super) contender: Option<Box<Contender>>,
}

/// A frame, and the source's size hint after it.
pub(super) struct Pulled {
    pub(super) frame: Frame<Bytes>,
    pub(super) hint: SizeHint,
    pub(super) is_last: bool,
}

pub(super) type PolledBody = Poll<Option<Result<Pulled, SharedError>>>;

/// A leader that polls the work of its solo flight.
pub(super) type Alone<'a, K, B, E> = Option<&'a mut Leader<K, B, E>>;

// ===== impl WorkContext =====

impl<X: KeyExtractor> WorkContext<X> {
    /// The flight, once it is whole.
    pub(super) fn flight(&self) -> &Arc<Flight<X::Key>> {
        self.flight.as_ref().expect("the flight is whole")
    }

    /// Ends the flight if its leader is alone in it, or else learns that it is whole.
    pub(super) fn end_alone<B, E>(&mut self, leader: &mut Alone<'_, X::Key, B, E>) -> bool {
        let (Some(leader), None) = (leader, &self.flight) else {
            return false;
        };
        self.flight = leader.end().err();
        self.flight.is_none()
    }

    /// Others are to have a part in the flight.
    pub(super) fn make_whole<B, E>(&mut self, leader: &mut Alone<'_, X::Key, B, E>) {
        if let (Some(leader), None) = (leader, &self.flight) {
            self.flight = Some(leader.make_whole());
        }
    }

    /// Leaves the leader's own response where it finds it.
    pub(super) fn leave<B, E>(
        &self,
        leader: Alone<'_, X::Key, B, E>,
        response: Result<LeaderResponse<B>, E>,
    ) where
        B: Send + 'static,
        E: Send + 'static,
    {
        if let Some(leader) = leader {
            return leader.give(response);
        }
        let flight = self.flight();
        let response = Box::new(response);
        flight.data.state().response = Some(response);
        // It looks for one when it has left.
        if flight.leader_has_left() {
            let unclaimed = flight.data.state().response.take();
            drop_quietly(unclaimed);
        }
    }
}
