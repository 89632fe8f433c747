//! What a caller of a [`Group`](super::Group) holds.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::{caller::Caller, outcome::Outcome, solo_leader::SoloLeader, value::ShareValue};

/// A caller's part in a flight, made by [`Group::run`](super::Group::run) and [`Group::spawn`](super::Group::spawn).
///
/// A future of the [`Outcome`]. It joins or leads the flight when it is made, whether or not it is polled.
///
/// # Cancel safety
///
/// Dropping it leaves the flight and harms no other caller. When the last caller leaves, the work is dropped and the key is
/// free before `drop` returns, unless `spawn` made or joined the flight.
///
/// # Panics
///
/// Polling it panics if the work panicked, and if it has already returned its outcome.
#[must_use = "dropping it leaves the flight at once: `.await` it for the outcome, or `drop` what you have spawned"]
pub struct Run<K, V> {
    part: Part<K, V>,
}

pub(super) enum Part<K, V> {
    Solo(SoloLeader<K, V, ()>),
    Caller(Caller<K, V, ()>),
    #[cfg(feature = "redis")]
    Across(Box<super::across::Across<K, V>>),
}

// ===== impl Run =====

impl<K, V> Run<K, V> {
    pub(super) fn new(part: Part<K, V>) -> Self {
        Self { part }
    }
}

impl<K, V> Future for Run<K, V>
where
    K: Send + 'static,
    V: ShareValue,
{
    type Output = Outcome<V>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Part::Solo(leader) = &mut self.part {
            match ready!(leader.poll(cx)) {
                Ok(value) => return Poll::Ready(Outcome::alone(value)),
                Err(caller) => self.part = Part::Caller(caller),
            }
        }
        match &mut self.part {
            Part::Solo(_) => unreachable!("it is ready with a value or a caller"),
            Part::Caller(caller) => {
                let led = caller.leads();
                let ended = ready!(caller.poll(cx));
                Poll::Ready(ended.into_outcome(led))
            }
            #[cfg(feature = "redis")]
            Part::Across(across) => across.poll(cx),
        }
    }
}

impl<K, V> fmt::Debug for Run<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part: &dyn fmt::Debug = match &self.part {
            Part::Solo(leader) => leader,
            Part::Caller(caller) => caller,
            #[cfg(feature = "redis")]
            Part::Across(across) => &across.caller,
        };
        f.debug_tuple("Run").field(part).finish()
    }
}
