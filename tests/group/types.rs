//! What generic code may rely on: auto traits, sizes, and what `Debug` shows.

use std::{cell::Cell, fmt::Debug, mem::size_of, rc::Rc};

use tower_singleflight::{Group, Outcome, Run};

fn is_group<T: Clone + Default + Debug + Send + Sync + Unpin + 'static>() {}
fn is_run<T: Future + Debug + Send + Sync + Unpin + 'static>() {}
fn is_outcome<T: Copy + Eq + Debug + Send + Sync + Unpin + 'static>() {}

/// `Send`, but neither `Sync` nor `Clone`.
#[derive(PartialEq, Eq)]
struct Key(Cell<u32>);

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.get().hash(state);
    }
}

#[test]
fn auto_traits_ask_nothing_of_the_key_but_send() {
    is_group::<Group<Key, String>>();
    is_run::<Run<Key, String>>();
    is_outcome::<Outcome<u32>>();
}

#[test]
fn the_types_exist_for_any_key_and_value() {
    // No bound on the structs: a user's struct may hold them without repeating any.
    struct Holds<K, V>(Option<Group<K, V>>, Option<Run<K, V>>, Option<Outcome<V>>);
    let holds: Holds<Rc<()>, Rc<()>> = Holds(None, None, None);
    assert!(holds.0.is_none() && holds.1.is_none() && holds.2.is_none());
    fn clones<K, V>(group: &Group<K, V>) -> Group<K, V> {
        group.clone()
    }
    let _ = clones(&Group::<u32, u32>::new());
}

#[test]
fn sizes_are_small() {
    assert_eq!(size_of::<Group<[u8; 99], [u8; 99]>>(), size_of::<usize>());
    assert_eq!(size_of::<Run<[u8; 99], [u8; 99]>>(), 4 * size_of::<usize>());
    assert_eq!(size_of::<Outcome<u64>>(), 16);
}

#[test]
fn debug_shows_the_count_and_the_part_and_no_key() {
    let group: Group<&str, u32> = Group::new();
    assert_eq!(format!("{group:?}"), "Group { in_flight: 0, .. }");
    let leader = group.run("secret", || async { 1 });
    let follower = group.run("secret", || async { 2 });
    assert_eq!(format!("{group:?}"), "Group { in_flight: 1, .. }");
    assert_eq!(
        format!("{leader:?}"),
        "Run(Caller { leads: true, ended: false, .. })"
    );
    assert_eq!(
        format!("{follower:?}"),
        "Run(Caller { leads: false, ended: false, .. })"
    );
    let outcome = Outcome {
        value: 1,
        shared: true,
        led: false,
    };
    assert_eq!(
        format!("{outcome:?}"),
        "Outcome { value: 1, shared: true, led: false }"
    );
    drop((leader, follower));
    assert_eq!(group.in_flight(), 0);
}
