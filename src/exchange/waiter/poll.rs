//! A waiter's turn.

use std::{
    mem,
    panic::resume_unwind,
    task::{Context, Poll},
};

use http::Request;
use tower_service::Service;

use super::state::{Next, Turn, Waiter};
use crate::{
    group::{Interest, caught, drop_quietly},
    key::KeyExtractor,
    observe::Reason,
};

impl<S, X, ReqBody, ResBody> Waiter<S, X, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    X: KeyExtractor,
{
    /// Drives the flight where that is this caller's part, until something is decided.
    ///
    /// # Panics
    ///
    /// If the flight crashed.
    #[expect(clippy::type_complexity, reason = "the waiter's own parameters")]
    pub(crate) fn poll_turn(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Next<S, X::Key, ReqBody, ResBody, S::Error>> {
        loop {
            let mut state = self.state.lock();
            let turn = match &state.turn {
                Turn::Begins(_) if state.is_between() => Turn::Waiting,
                _ => mem::replace(&mut state.turn, Turn::Waiting),
            };
            // Whoever comes back with a seat, or has one for it, comes too late.
            state.gone |= !matches!(turn, Turn::Waiting);
            let mut seat = match turn {
                Turn::Begins(head) => {
                    let seat = state.seat.take().expect("a caller that begins has a seat");
                    let prospect = state.prospect.take();
                    let (service, request) = prospect.expect("a waiter keeps its request");
                    return Poll::Ready(Next::Begin(seat, head, service, request));
                }
                Turn::Leads(desk) => {
                    let seat = state.seat.take().expect("a caller that leads has a seat");
                    return Poll::Ready(Next::Lead(seat, desk));
                }
                Turn::Forwarded(refused_by) => {
                    let prospect = state.prospect.take();
                    let (service, request) = prospect.expect("a waiter keeps its request");
                    return Poll::Ready(Next::Forward(service, request, refused_by));
                }
                Turn::Failed(error) => return Poll::Ready(Next::Fail(error)),
                Turn::Waiting => match state.seat.take() {
                    Some(seat) => seat,
                    None => {
                        // It is being moved, by somebody who looks here afterwards.
                        if state
                            .parked
                            .as_ref()
                            .is_some_and(|parked| parked.will_wake(cx.waker()))
                        {
                            return Poll::Pending;
                        }
                        drop(state);
                        let waker = cx.waker().clone();
                        let mut state = self.state.lock();
                        if state.is_between() {
                            let old = state.parked.replace(waker);
                            drop(state);
                            drop(old);
                            return Poll::Pending;
                        }
                        continue;
                    }
                },
            };
            let moves = state.moves;
            drop(state);
            let polled = match caught(|| seat.poll(Interest::End, cx)) {
                Ok(polled) => polled,
                Err(payload) => {
                    let concerned = self.state.lock().stays(moves);
                    drop(seat);
                    if concerned {
                        resume_unwind(payload);
                    }
                    // Sent on or moved by that flight, before it crashed.
                    drop_quietly(payload);
                    continue;
                }
            };
            let mut state = self.state.lock();
            let stale = state.sit(seat, moves);
            // One who was moved meanwhile has left no waker where it is now.
            let undecided = matches!(state.turn, Turn::Waiting) && stale.is_none();
            if undecided && polled.is_ready() {
                // The flight has ended and has said nothing: it is served without.
                state.turn = Turn::Forwarded(None);
                let seat = state.seat.take();
                drop(state);
                drop(seat);
                self.sent_on(Reason::Leaderless);
                continue;
            }
            drop(state);
            drop(stale);
            if undecided && polled.is_pending() {
                return Poll::Pending;
            }
        }
    }
}
