//! A group gives the memory of its flights back.

use tower_singleflight::Group;

use crate::{
    alone, live,
    support::{Gate, block_on},
};

#[test]
fn two_hundred_thousand_flights_at_once_give_their_memory_back() {
    let _alone = alone();
    let group: Group<u32, u64> = Group::new();
    let run = |ending: &dyn Fn(&Gate, Vec<_>)| {
        let gate = Gate::new();
        let runs: Vec<_> = (0..200_000)
            .map(|key| group.run(key, || gate.clone().then(1)))
            .collect();
        assert_eq!(group.in_flight(), 200_000);
        ending(&gate, runs);
        assert_eq!(group.in_flight(), 0);
    };
    let cancelled = |_: &Gate, runs| drop(runs);
    let forgotten = |_: &Gate, runs| {
        assert_eq!(group.forget_all(), 200_000);
        drop(runs);
    };
    let landed = |gate: &Gate, runs| {
        gate.open();
        for run in runs {
            block_on(run);
        }
    };
    // What was solo is left aside for its leader, which comes for it after the others, or when it leaves.
    let joined = |gate: &Gate, runs: Vec<_>| {
        let followers: Vec<_> = (0..200_000)
            .map(|key| group.run(key, || gate.clone().then(2)))
            .collect();
        gate.open();
        for follower in followers {
            assert!(block_on(follower).shared);
        }
        drop(runs);
    };
    let before = live();
    for ending in [
        &cancelled as &dyn Fn(&Gate, Vec<_>),
        &forgotten,
        &landed,
        &joined,
    ] {
        run(ending);
        // The shards keep no more than small tables: 64 of them, each of at most 32 entries of 64 bytes.
        let kept = live().saturating_sub(before);
        assert!(kept < 256 * 1024, "{kept} bytes are kept");
    }
}
