//! How long recent calls took: a call shorter than a few round trips is not worth the store.

use std::time::Duration;

use crate::replicas::id::Digest;

// Few in tests, which have many replicas.
const PLACES: usize = if cfg!(test) { 64 } else { 4096 };

/// A bounded memory: each key has one place, and the next key with the same place replaces it.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Empty until the first call is remembered.
    places: Vec<Option<(Digest, Duration)>>,
}

// ===== impl Calls =====

impl Calls {
    pub(super) fn took(&self, digest: Digest) -> Option<Duration> {
        let &(known, took) = self.places.get(place(digest))?.as_ref()?;
        (known == digest).then_some(took)
    }

    pub(super) fn remember(&mut self, digest: Digest, took: Duration) {
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        self.places[place(digest)] = Some((digest, took));
    }
}

fn place(digest: Digest) -> usize {
    digest.0 as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_of_a_key_is_remembered_and_another_key_of_its_place_is_not_taken_for_it() {
        let mut calls = Calls::default();
        let (key, other) = (Digest(1), Digest(1 + PLACES as u128));
        assert_eq!(calls.took(key), None);
        calls.remember(key, Duration::from_millis(5));
        calls.remember(key, Duration::from_millis(7));
        assert_eq!(calls.took(key), Some(Duration::from_millis(7)));
        assert_eq!(calls.took(other), None);
        calls.remember(other, Duration::from_millis(9));
        assert_eq!(calls.took(key), None);
    }
}
