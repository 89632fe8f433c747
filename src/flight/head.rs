//! A head that may be shared: what it says of its body, and whether there is room for that.

use http::{Method, response};
use http_body::{Body, SizeHint};

use super::context::WorkContext;
use crate::{buffer::Room, key::KeyExtractor, rules};

/// A head that may be shared.
pub(super) struct ShareableHead {
    pub(super) parts: response::Parts,
    pub(super) expected: Option<u64>,
    pub(super) hint: SizeHint,
    pub(super) is_empty: bool,
    /// Whether its length has been paid for.
    pub(super) announced: bool,
}

// ===== impl ShareableHead =====

impl ShareableHead {
    pub(super) fn new<B: Body>(request: &Method, parts: response::Parts, body: &B) -> Self {
        let hint = body.size_hint();
        Self {
            expected: rules::expected(request, &parts, &hint),
            is_empty: body.is_end_stream(),
            parts,
            hint,
            announced: false,
        }
    }

    /// Whether the body probably came with its head: it knows its own length.
    pub(super) fn is_at_hand(&self) -> bool {
        !self.is_empty && self.hint.exact().is_some()
    }

    /// Whether the response may turn out to be there whole.
    pub(super) fn is_there(&self) -> bool {
        self.is_at_hand() || self.is_empty && self.expected.unwrap_or(0) == 0
    }
}

// ===== impl WorkContext =====

impl<X> WorkContext<X>
where
    X: KeyExtractor,
{
    /// Reserves room for the body of a head that is to be shared. `false` if there is none.
    pub(super) fn reserve(&self, head: &mut ShareableHead) -> bool {
        // If it may turn out that no copy is needed, we pay only when one is.
        let is_shared = || self.flight.as_ref().is_some_and(|it| it.is_shared());
        head.announced = !head.is_there() || is_shared();
        !head.announced || self.announce(head.expected, head.hint)
    }

    /// Reserves room for the body, as much as there is. `false` if there is none.
    pub(super) fn announce(&self, expected: Option<u64>, hint: SizeHint) -> bool {
        let limits = self.shared.settings.limits;
        let announce = || {
            let mut state = self.flight().data.state();
            state.buffer.announce(expected, hint, limits)
        };
        let mut room = announce();
        if room != Room::Enough && self.shared.flights.make_room_for(self.flight()) {
            room = announce();
        }
        room != Room::None
    }
}
