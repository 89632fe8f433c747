//! What a body's frames, and its end, mean for those who read it or wait for it. See [`verdict`](super::verdict).

use std::ops::ControlFlow;

use super::work::{Brief, Pulled};
use crate::{
    error::SharedError, flights::Stage, group::Wakers, key::KeyExtractor, observe::Reason,
};

impl<X, ResBody, E> Brief<X, ResBody, E>
where
    X: KeyExtractor,
{
    /// Whether to pull a frame from the source.
    pub(super) fn may_pull(&self) -> bool {
        // With somebody who waits, or kept without anybody, the source is read ahead. The callers are looked at first: one
        // who joins a kept flight between the two looks would else be taken for a leader alone, and the task that drives
        // pause for ever.
        let eager = self.flight.callers() == 0 || self.flight.is_shared();
        let exchange = self.flight.cargo.exchange.lock();
        let tape = &exchange.tape;
        // All bytes are there: the end may be as well, and the flight be over no later than its last byte is read.
        let complete = tape.expected() == Some(tape.received());
        tape.may_pull(eager || complete)
    }

    /// The source has nothing more at the moment. One that has given all its bytes may still have to say that it has
    /// ended; nobody need join for that.
    pub(super) fn pause(&self) {
        let complete = {
            let exchange = self.flight.cargo.exchange.lock();
            exchange.tape.expected() == Some(exchange.tape.received())
        };
        if complete {
            self.flight.detach();
        }
    }

    /// A frame has come. `Break`: nobody is left to read the body.
    pub(super) fn receive(&self, pulled: Pulled) -> ControlFlow<()> {
        let Pulled {
            frame,
            hint,
            is_last,
        } = pulled;
        let limits = self.shared.settings.limits;
        let len = frame.data_ref().map_or(0, |data| data.len() as u64);
        if self.flight.is_shared() {
            let received = {
                let exchange = self.flight.cargo.exchange.lock();
                exchange.tape.expected() == Some(exchange.tape.received() + len)
            };
            if is_last || received {
                // Before the last byte can be read, by readers on other threads.
                self.flight.detach();
            }
        }
        let (refused, spent) = {
            let mut exchange = self.flight.cargo.exchange.lock();
            let refused = exchange.tape.push(frame, hint, limits).err();
            (refused, exchange.tape.take_spent())
        };
        drop(spent);
        match refused {
            None => ControlFlow::Continue(()),
            Some(frame) => self.outgrow(Some(Pulled {
                frame,
                hint,
                is_last,
            })),
        }
    }

    /// The body does not fit, or is not what was promised: no whole copy of it will be kept.
    pub(super) fn outgrow(&self, pulled: Option<Pulled>) -> ControlFlow<()> {
        self.flight.release();
        let (waiting, spent, stage) = {
            let mut exchange = self.flight.cargo.exchange.lock();
            let stage = exchange.close();
            let window = exchange.joined && matches!(stage, Stage::Open(_));
            let tape = &mut exchange.tape;
            if let Some(Pulled { frame, hint, .. }) = pulled {
                let received =
                    tape.received() + frame.data_ref().map_or(0, |data| data.len() as u64);
                match tape.expected() {
                    Some(expected) if received > expected => tape.cut_followers(received),
                    _ => tape.outgrow(window),
                }
                let refused = tape.push(frame, hint, self.shared.settings.limits);
                debug_assert!(refused.is_ok(), "a tape that is not whole refuses no frame");
            } else {
                tape.outgrow(false);
            }
            let spent = tape.take_spent();
            (exchange.take_waiting(), spent, stage)
        };
        drop((spent, stage));
        let mut wakers = Wakers::default();
        waiting
            .iter()
            .for_each(|waiter| waiter.forward(Reason::TooLarge, &mut wakers));
        wakers.wake();
        if self.flight.callers() == 0 {
            return ControlFlow::Break(());
        }
        self.flight.demote();
        ControlFlow::Continue(())
    }

    /// The source has ended, or has failed.
    pub(super) fn land(&self, error: Option<SharedError>) {
        if self.flight.is_shared() {
            self.flight.detach();
        }
        let (stage, waiting, spent) = {
            let mut exchange = self.flight.cargo.exchange.lock();
            let joined = exchange.joined;
            match error {
                Some(error) => exchange.tape.fail(error),
                None => exchange.tape.finish(joined),
            }
            let spent = exchange.tape.take_spent();
            (exchange.close(), exchange.take_waiting(), spent)
        };
        drop(spent);
        let mut wakers = Wakers::default();
        for waiter in waiting {
            match &stage {
                Stage::Collecting(head) => waiter.begin(head, &mut wakers),
                // Nobody waits once others have begun.
                _ => waiter.forward(Reason::Leaderless, &mut wakers),
            }
        }
        wakers.wake();
    }
}
