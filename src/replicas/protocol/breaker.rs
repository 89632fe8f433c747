//! Whether the store is in use. This replica keeps sending beats to its own inbox, and the store echoes them.

use std::{collections::VecDeque, time::Duration};

use super::Time;

/// The breaker opens after this many requests in a row without a reply.
const MAX_FAILURES: u32 = 3;

/// The most beats under way that are remembered.
const BEATS: usize = 64;

/// How many echoes count: the quickest says how far away the store is, because a busy process makes others look slow.
const ECHOES: usize = 8;

/// While it is closed, the store is in use; while it is open, it is not. It begins open.
#[derive(Debug)]
pub(super) struct Breaker {
    is_up: bool,
    /// Requests in a row without a reply.
    failures: u32,
    next_beat: u64,
    /// Beats without an echo yet, and when they were sent.
    under_way: VecDeque<(u64, Time)>,
    /// How long the last echoes took.
    echoes: VecDeque<Duration>,
    /// Requests sent before this time have been counted already.
    counted: Time,
    patience: Duration,
    down_after: Duration,
}

// ===== impl Breaker =====

impl Breaker {
    pub(super) fn new(patience: Duration, down_after: Duration) -> Self {
        Self {
            is_up: false,
            failures: 0,
            next_beat: 0,
            under_way: VecDeque::new(),
            echoes: VecDeque::new(),
            counted: Time::ZERO,
            patience,
            down_after,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.echoes.iter().min().copied()
    }

    /// The number of the beat to send.
    pub(super) fn beat(&mut self, now: Time) -> u64 {
        let number = self.next_beat;
        self.next_beat += 1;
        if self.under_way.len() < BEATS {
            self.under_way.push_back((number, now));
        }
        number
    }

    /// A beat has come back. If it was quick enough for a request, the store is in use again. `true`: it was too slow,
    /// and the breaker opens.
    #[must_use]
    pub(super) fn echo(&mut self, number: u64, now: Time) -> bool {
        let Ok(found) = self.under_way.binary_search_by_key(&number, |beat| beat.0) else {
            return false;
        };
        let (_, sent) = self.under_way[found];
        self.under_way.drain(..=found);
        let took = now.saturating_sub(sent);
        self.echoes.truncate(ECHOES - 1);
        self.echoes.push_front(took);
        if took > self.patience {
            return self.failed(sent, now);
        }
        self.failures = 0;
        self.is_up = true;
        false
    }

    /// The store has answered a request.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
    }

    /// A request has had no reply since `asked`, or got an error. Requests that waited at the same time count as one,
    /// because the same short delay may have hit them all. `true`: the breaker opens.
    #[must_use]
    pub(super) fn failed(&mut self, asked: Time, now: Time) -> bool {
        if asked < self.counted {
            return false;
        }
        self.counted = now;
        self.failures += 1;
        self.is_up && self.failures >= MAX_FAILURES
    }

    /// How long no beat has come back.
    pub(super) fn silence(&self, now: Time) -> Duration {
        let oldest = self.under_way.front();
        oldest.map_or(Duration::ZERO, |&(_, sent)| now.saturating_sub(sent))
    }

    /// When it opens unless a beat comes back.
    pub(super) fn opens_at(&self) -> Option<Time> {
        let &(_, sent) = self.under_way.front()?;
        self.is_up.then_some(sent + self.down_after)
    }

    /// The link is new: beats that were under way won't come back.
    pub(super) fn relinked(&mut self) {
        self.under_way.clear();
    }

    pub(super) fn open(&mut self) {
        self.is_up = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn breaker() -> Breaker {
        Breaker::new(ms(50), ms(300))
    }

    fn closed() -> Breaker {
        let mut breaker = breaker();
        let beat = breaker.beat(ms(0));
        assert!(!breaker.echo(beat, ms(1)));
        breaker
    }

    #[test]
    fn it_begins_open_and_one_echo_closes_it() {
        let mut breaker = breaker();
        assert!(!breaker.is_up());
        let beat = breaker.beat(ms(0));
        assert!(!breaker.echo(beat, ms(1)));
        assert!(breaker.is_up());
        assert_eq!(breaker.round_trip(), Some(ms(1)));
    }

    #[test]
    fn an_echo_slower_than_patience_does_not_close_it() {
        let mut breaker = breaker();
        let beat = breaker.beat(ms(0));
        assert!(!breaker.echo(beat, ms(51)));
        assert!(!breaker.is_up());
    }

    #[test]
    fn an_echo_as_slow_as_patience_closes_it() {
        let mut breaker = breaker();
        let beat = breaker.beat(ms(0));
        assert!(!breaker.echo(beat, ms(50)));
        assert!(breaker.is_up());
    }

    #[test]
    fn an_echo_between_requests_in_vain_keeps_it_closed() {
        let mut breaker = closed();
        for at in (0..500).step_by(50) {
            assert!(!breaker.failed(ms(at), ms(at + 50)), "{at}");
            let beat = breaker.beat(ms(at));
            assert!(!breaker.echo(beat, ms(at + 1)), "{at}");
        }
    }

    #[test]
    fn three_echoes_in_a_row_slower_than_patience_open_it() {
        let mut breaker = closed();
        let beats = [200, 400, 600].map(|at| (breaker.beat(ms(at)), at));
        let slow = beats.map(|(beat, at)| breaker.echo(beat, ms(at + 60)));
        assert_eq!(slow, [false, false, true]);
    }

    #[test]
    fn an_echo_that_comes_twice_is_heard_once() {
        let mut breaker = closed();
        breaker.open();
        assert!(!breaker.echo(0, ms(2)));
        assert!(!breaker.is_up());
    }

    #[test]
    fn three_requests_in_a_row_in_vain_open_it() {
        let mut breaker = closed();
        let mut now = 0;
        let mut failed = |breaker: &mut Breaker| {
            now += 50;
            breaker.failed(ms(now - 50), ms(now))
        };
        assert_eq!([failed(&mut breaker), failed(&mut breaker)], [false; 2]);
        breaker.answered();
        assert_eq!([failed(&mut breaker), failed(&mut breaker)], [false; 2]);
        assert!(failed(&mut breaker));
    }

    #[test]
    fn requests_that_wait_in_vain_at_the_same_time_count_as_one() {
        let mut breaker = closed();
        for asked in 0..50 {
            assert!(!breaker.failed(ms(asked), ms(asked + 50)));
        }
    }

    #[test]
    fn the_store_is_as_far_as_the_quickest_of_the_last_echoes() {
        let mut breaker = breaker();
        let mut echo = |at: u64, took: u64| {
            let beat = breaker.beat(ms(at));
            let _ = breaker.echo(beat, ms(at + took));
            breaker.round_trip()
        };
        assert_eq!(echo(0, 20), Some(ms(20)));
        assert_eq!(echo(200, 1), Some(ms(1)));
        for beat in 0..7 {
            assert_eq!(echo(400 + 200 * beat, 20), Some(ms(1)));
        }
        assert_eq!(echo(2000, 20), Some(ms(20)));
    }

    #[test]
    fn missing_beats_are_silence_until_a_later_one_comes_back() {
        let mut breaker = closed();
        breaker.beat(ms(200));
        let later = breaker.beat(ms(400));
        assert_eq!(breaker.opens_at(), Some(ms(500)));
        assert_eq!(breaker.silence(ms(450)), ms(250));
        assert!(!breaker.echo(later, ms(410)));
        assert_eq!(breaker.opens_at(), None);
        assert_eq!(breaker.silence(ms(450)), ms(0));
    }
}
