//! Drops work that nobody waits for any more.

use std::{cell::RefCell, panic::resume_unwind, pin::Pin};

use super::{panic::caught, work::Work};

/// How deep drops of work may nest before the rest is left to the outermost one.
const DEPTH: usize = 32;

thread_local! {
    static CANCELLING: RefCell<Cancelling> = const {
        RefCell::new(Cancelling {
            depth: 0,
            aside: Vec::new(),
        })
    };
}

struct Cancelling {
    depth: usize,
    aside: Vec<Pin<Box<dyn Send>>>,
}

/// Drops work. It may hold the last caller of another flight, whose work is then dropped too, and so on. The stack
/// stays bounded however long this chain is, and all of it has been dropped when the outermost call returns.
pub(super) fn cancel<V>(work: Work<V>) {
    let mut work = Some(work.erase());
    let entered = CANCELLING.try_with(|cancelling| {
        let mut cancelling = cancelling.borrow_mut();
        if cancelling.depth == DEPTH {
            cancelling.aside.extend(work.take());
        } else {
            cancelling.depth += 1;
        }
        cancelling.depth
    });
    let Ok(depth) = entered else {
        // The thread is ending.
        return drop(work);
    };
    let Some(work) = work else {
        return;
    };
    let mut panic = caught(|| drop(work)).err();
    // A panic stops no other drop. The first one goes on afterwards.
    loop {
        let next = CANCELLING.with_borrow_mut(|cancelling| {
            let next = match depth {
                1 => cancelling.aside.pop(),
                _ => None,
            };
            cancelling.depth -= usize::from(next.is_none());
            next
        });
        let Some(work) = next else {
            break;
        };
        panic = panic.or(caught(|| drop(work)).err());
    }
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}
