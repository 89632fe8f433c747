//! What the parts of a flight's work share.

use std::sync::Arc;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

#[cfg(feature = "redis")]
use super::contender::Contender;
use super::{leader::LeaderSlot, state::Flight};
use crate::{key::KeyExtractor, shared::Shared};

/// The flight and the leader that the work is for.
pub(super) struct WorkContext<X: KeyExtractor, ResBody, E> {
    pub(super) flight: Arc<Flight<X::Key>>,
    pub(super) shared: Arc<Shared<X>>,
    pub(super) slot: Arc<LeaderSlot<ResBody, E>>,
    #[cfg(feature = "redis")]
    pub(super) contender: Option<Box<Contender>>,
}

/// A frame, and the source's size hint after it.
pub(super) struct Pulled {
    pub(super) frame: Frame<Bytes>,
    pub(super) hint: SizeHint,
    pub(super) is_last: bool,
}
