//! What a body's frames and its end mean for readers and waiting followers. See [`verdict`](super::verdict).

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::{
    audit::TakenOriginal,
    context::{Pulled, WorkContext},
    state::Stage,
    verdict,
};
use crate::{
    buffer::{Prefix, PrefixHasher},
    error::SharedError,
    key::KeyExtractor,
    observe::Reason,
};

impl<X> WorkContext<X>
where
    X: KeyExtractor,
{
    /// Whether to pull a frame from the source.
    pub(super) fn may_pull(&self) -> bool {
        // Read ahead if somebody waits, or if the flight is kept without callers. Look at the callers first: otherwise
        // one that joins a kept flight in between would look like a lone leader, and the driving task would pause for
        // ever.
        let eager = self.flight().callers() == 0 || self.flight().is_shared();
        let state = self.flight().data.state();
        // If all bytes have come and the end is there too, the flight is over before its last byte is read.
        state.buffer.may_pull(eager || state.buffer.is_all_with(0))
    }

    /// The source is pending. If all promised bytes have come, only the end is missing, and nobody need join for that.
    pub(super) fn pause(&self) {
        let is_all = self.flight().data.state().buffer.is_all_with(0);
        if is_all {
            #[cfg(feature = "redis")]
            self.end_elsewhere_soon();
            self.flight().detach();
        }
    }

    /// The source has given something in this poll, and may give more.
    pub(super) fn touch(&self) {
        let now = Instant::now();
        self.flight().data.state().active = Some(now);
    }

    /// A frame has come. `hasher` hashes the body while several callers share a window.
    pub(super) fn receive(&self, pulled: Pulled, hasher: &mut Option<PrefixHasher>) {
        let Pulled {
            frame,
            hint,
            is_last,
        } = pulled;
        let len = frame.data_ref().map_or(0, Bytes::len);
        if self.flight().is_shared() {
            let is_all = self.flight().data.state().buffer.is_all_with(len);
            if is_last || is_all {
                // Before readers on other threads can read the last byte.
                #[cfg(feature = "redis")]
                self.end_elsewhere_soon();
                self.flight().detach();
            }
        }
        let prefix = self.follow(&frame, hasher);
        let Err(frame) = self.push(frame, hint, prefix) else {
            return;
        };
        let is_short = self.flight().data.state().buffer.is_short(len);
        if !is_short || !self.shared.flights.make_room_for(self.flight()) {
            return self.outgrow(frame, hint, hasher);
        }
        if let Err(frame) = self.push(frame, hint, None) {
            self.outgrow(frame, hint, hasher);
        }
    }

    fn push(
        &self,
        frame: Frame<Bytes>,
        hint: SizeHint,
        prefix: Option<Prefix>,
    ) -> Result<(), Frame<Bytes>> {
        let (pushed, audited, _spent) = {
            let mut state = self.flight().data.state();
            let audited = state.original.clone().map(|original| {
                let data = frame.data_ref().cloned().unwrap_or_default();
                (original, data, frame.trailers_ref().cloned())
            });
            let pushed = state.buffer.push(frame, hint, prefix);
            (pushed, audited, state.buffer.take_spent())
        };
        if let (Ok(()), Some((original, data, trailers))) = (&pushed, audited) {
            original.receive(&data, trailers);
        }
        pushed
    }

    /// The body up to the end of `frame`, if several callers share a window.
    fn follow(&self, frame: &Frame<Bytes>, hasher: &mut Option<PrefixHasher>) -> Option<Prefix> {
        let is_followed = || {
            let state = self.flight().data.state();
            state.buffer.is_shared_window()
        };
        // Nobody joins a window, so a lone reader stays alone.
        if hasher.is_some() && !is_followed() {
            *hasher = None;
        }
        let hasher = hasher.as_mut()?;
        hasher.append(frame.data_ref().map_or(&[], |data| data));
        Some(hasher.prefix())
    }

    /// This frame exceeds the limit or the promised length: nobody joins any more.
    fn outgrow(&self, frame: Frame<Bytes>, hint: SizeHint, hasher: &mut Option<PrefixHasher>) {
        #[cfg(feature = "redis")]
        self.refuse_elsewhere(Reason::TooLarge);
        self.flight().release();
        let data = {
            let state = self.flight().data.state();
            let is_shared = state.buffer.readers() > 1;
            is_shared.then(|| state.buffer.held_data())
        };
        let prefixes = data.map(|data| {
            let hasher = hasher.insert(PrefixHasher::new());
            let prefix = |data: Bytes| {
                hasher.append(&data);
                hasher.prefix()
            };
            data.into_iter().map(prefix).collect::<Vec<_>>()
        });
        let outgrown = {
            let mut state = self.flight().data.state();
            let prefixes = prefixes.as_deref().unwrap_or_default();
            state.buffer.outgrow(prefixes);
            (state.close(), state.buffer.take_spent())
        };
        drop(outgrown);
        let prefix = self.follow(&frame, hasher);
        let pushed = self.push(frame, hint, prefix);
        debug_assert!(pushed.is_ok(), "a window refuses no frame");
        self.flight().demote();
    }

    /// There can be no copy: waiting followers make their own calls.
    pub(super) fn refuse_followers(&self, reason: Reason) {
        #[cfg(feature = "redis")]
        self.refuse_elsewhere(reason);
        self.flight().release();
        self.flight().data.state().buffer.outgrow(&[]);
        let (_, taken) = verdict::close(self.flight());
        if let Some(taken) = taken {
            taken.refuse();
        }
        verdict::dismiss(self.flight(), Stage::Refused(reason));
        self.flight().demote();
    }

    /// The source has ended, or has failed.
    pub(super) fn land(&self, error: Option<SharedError>) {
        #[cfg(feature = "redis")]
        let answering = self.end_elsewhere();
        #[cfg(feature = "redis")]
        let mut whole = None;
        if self.flight().is_shared() {
            self.flight().detach();
        }
        let (taken, closed) = {
            let mut state = self.flight().data.state();
            #[cfg(feature = "redis")]
            if answering.is_some() && error.is_none() {
                whole = state.whole();
            }
            match error {
                Some(error) => state.buffer.fail(error),
                None => state.buffer.finish(),
            }
            let taken = TakenOriginal::of(&mut state);
            (taken, (state.close(), state.buffer.take_spent()))
        };
        drop(closed);
        self.conclude(taken);
        #[cfg(feature = "redis")]
        if let Some(answering) = answering {
            self.answer_elsewhere(answering, whole);
        }
    }
}
