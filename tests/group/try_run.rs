//! Work that can fail: `Group::try_run`, and `SharedError` as its error.

use std::{error::Error, fmt, io, sync::Arc};

use tower_singleflight::{Group, SharedError, TryRun};

use crate::support::{Alive, Count, Gate, block_on, panic_of, poll_once, text};

/// Neither `Clone` nor an error of anybody else's.
#[derive(Debug, PartialEq, Eq)]
struct Refused(u32);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused {}", self.0)
    }
}

impl Error for Refused {}

type Strings = Group<String, Result<u32, Arc<Refused>>>;

#[tokio::test]
async fn callers_that_borrow_their_keys_share_one_call() {
    let group = Strings::new();
    let calls = Count::new();
    let work = || {
        calls.up();
        async {
            tokio::task::yield_now().await;
            Ok(1)
        }
    };
    let (first, second) = tokio::join!(
        group.try_run("key", work),
        group.try_run(&String::from("key"), work)
    );
    assert_eq!((first, second, calls.get()), (Ok(1), Ok(1), 1));
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn an_error_that_is_not_clone_reaches_every_caller_as_the_same_arc() {
    let group = Strings::new();
    let gate = Gate::new();
    let leader = group.try_run("key", || gate.clone().then(Err(Refused(7))));
    let follower = group.try_run("key", || async { Ok(1) });
    gate.open();
    let (one, two) = (leader.await.unwrap_err(), follower.await.unwrap_err());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(*one, Refused(7));
    assert_eq!(group.in_flight(), 0);
}

#[tokio::test]
async fn the_result_goes_through_the_question_mark() {
    async fn call(group: &Strings) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(group.try_run("key", || async { Err(Refused(7)) }).await?)
    }
    let error = call(&Strings::new()).await.unwrap_err();
    assert_eq!(SharedError::find(&*error), Some(&Refused(7)));
}

#[test]
fn run_and_try_run_of_one_group_share_a_flight() {
    let group = Strings::new();
    let leader = group.run("key".into(), || async { Ok(1) });
    let follower = group.try_run("key", || async { Err(Refused(7)) });
    assert_eq!(group.waiters("key"), 2);
    assert_eq!(block_on(follower), Ok(1));
    assert!(block_on(leader).led);
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn keys_of_other_kinds_are_borrowed_too() {
    let numbers: Group<u32, Result<(), Arc<Refused>>> = Group::new();
    assert_eq!(block_on(numbers.try_run(&3, || async { Ok(()) })), Ok(()));
    let pairs: Group<(String, u32), Result<(), Arc<Refused>>> = Group::new();
    let key = ("tenant".to_owned(), 3);
    assert_eq!(block_on(pairs.try_run(&key, || async { Ok(()) })), Ok(()));
    let bytes: Group<Vec<u8>, Result<(), Arc<Refused>>> = Group::new();
    assert_eq!(
        block_on(bytes.try_run(&b"key"[..], || async { Ok(()) })),
        Ok(())
    );
}

#[test]
fn it_joins_when_it_is_called_and_leaves_when_it_is_dropped() {
    let group = Strings::new();
    let alive = Count::new();
    let inside = Alive::new(&alive);
    let run = group.try_run("key", || async move {
        let _inside = inside;
        std::future::pending().await
    });
    assert_eq!((group.in_flight(), group.waiters("key")), (1, 1));
    drop(run);
    assert_eq!((group.in_flight(), alive.get()), (0, 0));
}

#[test]
fn a_panic_of_the_work_reaches_every_caller() {
    let group = Strings::new();
    let mut leader = group.try_run("key", || async { panic!("boom") });
    let mut follower = group.try_run("key", || async { Ok(1) });
    for caller in [&mut leader, &mut follower] {
        assert_eq!(text(&*panic_of(|| poll_once(caller))), "boom");
    }
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn a_key_whose_to_owned_panics_is_its_callers_alone() {
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Bad;
    impl Clone for Bad {
        fn clone(&self) -> Self {
            panic!("bad clone")
        }
    }
    let group: Group<Bad, Result<(), Arc<Refused>>> = Group::new();
    let panic = panic_of(|| group.try_run(&Bad, || async { Ok(()) }));
    assert_eq!(text(&*panic), "bad clone");
    assert_eq!(group.in_flight(), 0);
    assert_eq!(block_on(group.run(Bad, || async { Ok(()) })).value, Ok(()));
}

#[test]
fn work_may_borrow_and_its_future_may_not() {
    let group = Strings::new();
    let number = Count::new();
    let borrowed = &number;
    let run = group.try_run("key", || {
        borrowed.up();
        async { Ok(1) }
    });
    assert_eq!((block_on(run), number.get()), (Ok(1), 1));
}

#[tokio::test]
async fn a_shared_error_is_an_error_for_all_its_callers() {
    let group: Group<&str, Result<String, SharedError>> = Group::new();
    let read = || async { std::fs::read_to_string("no such file").map_err(SharedError::new) };
    let (one, two) = tokio::join!(group.run("file", read), group.run("file", read));
    for outcome in [one, two] {
        let error = outcome.value.unwrap_err();
        let original = SharedError::find::<io::Error>(&error).unwrap();
        assert_eq!(original.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), original.to_string());
    }
    assert_eq!(group.in_flight(), 0);
}

#[test]
fn its_future_goes_anywhere_and_debug_shows_no_key() {
    fn anywhere<T: Future + fmt::Debug + Send + Sync + Unpin + 'static>() {}
    anywhere::<TryRun<String, u32, Refused>>();
    let run = Strings::new().try_run("secret", || async { Ok(1) });
    assert_eq!(
        format!("{run:?}"),
        "TryRun(Run(Caller { leads: true, ended: false, .. }))"
    );
}
